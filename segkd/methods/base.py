"""What a method is: groups of loss terms, one for each side, with weights and options, and a schedule of moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segkd.foundation.errors import UsageError

FIELDS = ("z", "x", "labels", "t", "s", "t_features", "s_features", "statistics")


@dataclass(frozen=True)
class Rules:
    """The rules between the players, as a recipe's `game` block says them; `steps` is the length of the run.

    `overlap`: the student's moves of a step learn from the images kept before it, so that they need not wait for the others.
    """

    steps: int
    student_moves: int = 5
    synth_moves: int = 1
    keep_moves: int = 0
    overlap: bool = False


class OnDemand(dict[str, object]):
    """What a term may look at, of which some is made only when one does."""

    def __init__(self, known: Mapping[str, object], **makers: Callable[[], object]) -> None:
        super().__init__(known)
        self._makers = makers

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._makers

    def __missing__(self, name: str) -> object:
        self[name] = made = self._makers[name]()
        return made


class View:
    """What a term may look at in one move. It records what was touched, so that a move computes nothing else.

    `z` latents, `x` images in the teacher's input space, `t` and `s` logits (N,C,h,w) of teacher and student,
    `t_features` and `s_features` lists of maps, `statistics` of the teacher's BatchNorm inputs, `labels` (conditional
    sources only); `teacher(x2)`, `student(x2)` and `average(x2)` are logits of other images.
    """

    def __init__(
        self, values: Mapping[str, object], teacher: Callable[[Tensor], Tensor], student: Callable[[Tensor], Tensor],
        average: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self._values = values
        self._networks = {"teacher": teacher, "student": student, "average": average}
        self.touched: set[str] = set()

    def __getattr__(self, name: str):  # noqa: ANN204 - tensors and lists
        if name in FIELDS:
            if name not in self._values:
                if name == "labels":
                    raise UsageError(
                        "a term looks at v.labels, and the source draws no maps of classes; set synth.kind=conditional"
                    )
                raise AttributeError(f"a term looks at v.{name}, which this move does not make")
            self.touched.add(name)
            return self._values[name]
        raise AttributeError(f"v.{name}: a term may look at {', '.join(FIELDS)}")

    def teacher(self, images: Tensor) -> Tensor:
        """The teacher's logits of other images."""
        self.touched.add("teacher")
        return self._networks["teacher"](images)

    def student(self, images: Tensor) -> Tensor:
        """The student's logits of other images."""
        return self._networks["student"](images)

    def average(self, images: Tensor) -> Tensor:
        """The averaged student's logits of other images, through which no gradient flows.

        Raises:
            UsageError: the student has no average.
        """
        self.touched.add("average")
        average = self._networks["average"]
        if average is None:
            raise UsageError("a term asks for v.average, and the student has no average; set student.ema=0.99")
        return average(images)


class Options(dict[str, Any]):
    """The options of a method or a term by name. Raises UsageError for one that its class does not state."""

    def __init__(self, kind: type[nn.Module], given: Mapping[str, Any] | None) -> None:
        super().__init__({**kind.options, **(given or {})})
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        raise UsageError(
            f"{self._kind.__name__}: no option {name!r} in its `options`, and a term asks for it; state its default"
        )


class Term(nn.Module):
    """A further student term, which any method may be played with: one file in `segkd/methods/terms/`.

    Its `forward` takes a View and returns a number () that the student minimises. `options` and `allowed` are as a
    method's; it may own parameters, which the student's optimiser moves, and buffers.
    """

    options: dict[str, Any] = {}
    allowed: ClassVar[dict[str, Any]] = {}

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.options = Options(type(self), options)


class Method(nn.Module):
    """Base of all methods. A subclass names its terms, gives each a default weight and one function of a View.

    `source` names the terms of whoever makes the images, `pixels` those that images answer to by themselves before they
    are kept. A term returns a number () that its player, or such images, minimise. `options` are the method's own settings
    with their defaults, `allowed` the words or the bounds of each (see `recipe.own_options.Option`). Parameters that a
    subclass registers learn with the player whose terms use them; they and its buffers are checkpointed.
    """

    student: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[tuple[str, ...]] = ()
    pixels: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[dict[str, float]] = {}
    options: dict[str, Any] = {}
    allowed: ClassVar[dict[str, Any]] = {}
    variants: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, rules: Rules, weights: Mapping[str, float] | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.rules = rules
        self.chosen = {**self.weights, **(weights or {})}
        self.options = Options(type(self), options)
        self.further: tuple[str, ...] = ()

    def take(self, name: str, term: Term, weight: float) -> None:
        """Let the student answer to a further term, too.

        Raises:
            UsageError: the method has something of its own that is called so.
        """
        if hasattr(self, name):
            raise UsageError(f"terms.{name}: {type(self).__name__} has a {name} of its own; leave this one out")
        self.add_module(name, term)
        self.chosen[name] = weight
        self.further += (name,)

    def meet(self, teacher: nn.Module) -> None:
        """Look at the teacher (`segkd.models.teacher.Teacher`) once, before the source is made and anything is played."""

    def source_around(self, source: nn.Module) -> nn.Module:
        """What draws the images: the recipe's source, or one of the method's own around it (`segkd.synthesis.source.Source`)."""
        return source

    def moves(self, step: int) -> list[str]:
        """The moves of a step, in order: synthesis first, so that the student's images are the newest."""
        rules = self.rules
        source = ["source"] * rules.synth_moves if self.terms("source") else []
        return source + ["keep"] * rules.keep_moves + ["student"] * rules.student_moves

    def terms(self, group: str) -> list[str]:
        """The names of the terms of `student`, `source` or `pixels` that have weight: the others cost nothing."""
        names = getattr(self, group) + (self.further if group == "student" else ())
        return [name for name in names if self.chosen[name] > 0]

    def weight(self, name: str, step: int) -> float:
        """The weight of a term at a step."""
        return self.chosen[name]

    def value(self, name: str, view: View) -> Tensor:
        """A term's own value ().

        Raises:
            UsageError: the term returns anything else.
        """
        value = getattr(self, name)(view)
        if not isinstance(value, Tensor) or value.shape or not value.is_floating_point():
            what = f"an object of type {type(value).__name__}"
            if isinstance(value, Tensor):
                what = f"a tensor {tuple(value.shape)} of {str(value.dtype)[6:]}"
            wanted = "and not one number: a tensor () of floats, such as a mean"
            raise UsageError(f"{self._place(name)}term {name} returns {what}, {wanted}")
        return value

    def _place(self, name: str) -> str:
        """Where a term is written, as the beginning of a line about it."""
        term = getattr(self, name)
        code = getattr(term.forward if isinstance(term, nn.Module) else term, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""

    def loss(self, group: str, view: View, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of a group's terms, and each term's own value by name."""
        values = {name: self.value(name, view) for name in self.terms(group)}
        total = torch.stack([self.weight(name, step) * value for name, value in values.items()]).sum()
        return total, values

    def check_gradients(self, values: Mapping[str, Tensor]) -> None:
        """Raises UsageError for a value without a graph, which trains nothing; 0 is let pass: a term may begin later."""
        for name, value in values.items():
            if not value.requires_grad and value != 0:
                advice = "leave detach(), no_grad() and NumPy out of it"
                raise UsageError(f"{self._place(name)}no gradient comes back from term {name}; {advice}")
