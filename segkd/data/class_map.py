"""The classes of a student, each made of one or several of its teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segkd.data.classes import IGNORE, UNKNOWN, Classes, disagreement
from segkd.data.samples import Dataset, FileSet, Sample


@dataclass(frozen=True)
class ClassMap:
    """From the classes of a teacher to those of a student; what goes into none of these is dropped.

    Attributes:
        teacher, student: the classes of both; the same where nothing is mapped.
        members: the ids of the teacher's classes that each of the student's is made of.
    """

    teacher: Classes
    student: Classes
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, teacher: Classes, student: Iterable[Mapping[str, Sequence[str]]] | None = None) -> ClassMap:
        """That of names, all of which are the teacher's; None maps nothing.

        A class that keeps a name keeps its colour, and another one has that of the first that it is made of.
        """
        if student is None:
            return cls(teacher, teacher, tuple((index,) for index in range(len(teacher))))
        made = {name: names for entry in student for name, names in entry.items()}
        members = tuple(tuple(map(teacher.names.index, names)) for names in made.values())
        shown = (name if name in teacher.names else names[0] for name, names in made.items())
        palette = tuple(teacher.palette[teacher.names.index(name)] for name in shown)
        return cls(teacher, Classes(f"{teacher.name}, mapped", tuple(made), palette), members)

    @property
    def maps(self) -> bool:
        """Whether the student's classes are others."""
        return self.student is not self.teacher

    @property
    def dropped(self) -> list[str]:
        """The teacher's classes that go into none of the student's."""
        used = {index for members in self.members for index in members}
        return [name for index, name in enumerate(self.teacher.names) if index not in used]

    def covers(self, classes: Classes) -> bool:
        """Whether labels of these classes are to be mapped: they are the teacher's, and not the student's already."""
        theirs = disagreement(self.teacher.names, classes, "teacher") is None
        return self.maps and theirs and self.student.names != classes.names

    def labels(self, mask: np.ndarray) -> np.ndarray:
        """The student's ids in a mask (H,W) uint8 of the teacher's: `IGNORE` stays, and so does what is dropped become it."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[: len(self.teacher)], table[IGNORE] = IGNORE, IGNORE
        for index, members in enumerate(self.members):
            table[list(members)] = index
        return table[mask]


class MappedSet(FileSet):
    """A split of a labelled set of a teacher's classes with a student's in their place."""

    def __init__(self, data: Dataset, mapping: ClassMap, split: str) -> None:
        self._data, self._mapping, self.classes = data, mapping, mapping.student
        more = f" and {len(mapping.dropped) - 8} more" if len(mapping.dropped) > 8 else ""
        ignored = f"; ignored: {', '.join(mapping.dropped[:8])}{more}" if mapping.dropped else ""
        count = f"{len(mapping.teacher)} classes become {len(mapping.student)} (teacher.student_classes)"
        self.notes = (*data.notes, f"labels of {data.classes.name} {split}: {count}{ignored}")

    def __len__(self) -> int:
        return len(self._data)

    def read(self, index: int) -> Sample:
        """As of the set; see `FileSet.read`."""
        sample = self._data[index]
        return sample if sample.mask is None else replace(sample, mask=self._mapping.labels(sample.mask))
