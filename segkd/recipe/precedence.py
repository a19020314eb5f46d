"""Which of a recipe's values holds: what is nearer to the user wins.

Each file is a layer over the file that it extends, and the command line lies over all. Within a file, a preset of the
chosen method lies over the file's own blocks, and `METHOD.VARIANT` over `METHOD`. Mappings merge key by key; scalars and
lists replace; null takes back what lay below. So a key in a file of one's own beats the presets of all that it extends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from segkd.recipe.messages import key_name, shown
from segkd.recipe.sources import merge, whole_lists
from segkd.recipe.strict_yaml import Node, plain
from segkd.recipe.terms import Terms

Key = tuple[str, ...]
_LENGTH = {"steps": "budget", "budget": "steps"}
"""The two keys of `run` that say how long it is, each with the other."""


@dataclass(frozen=True)
class Layer:
    """What one file says, or the command line: its blocks, and its presets by name."""

    blocks: Node
    presets: Mapping[str, Node]

    def value(self, key: Key) -> Node | None:
        """What the blocks say at a key; None: nothing."""
        return _at(self.blocks, key)

    def with_blocks(self, blocks: Mapping[str, Node]) -> Layer:
        """The layer with some of its blocks replaced."""
        assert isinstance(self.blocks.value, dict)
        return Layer(Node({**self.blocks.value, **blocks}, self.blocks.where), self.presets)

    def changed(self, change: Callable[[Node], Node]) -> Layer:
        """The layer with its blocks, and each of its presets, changed alike."""
        return Layer(change(self.blocks), {name: change(node) for name, node in self.presets.items()})


@dataclass(frozen=True)
class Choice:
    """A method and its variant, each with the number of the layer that chose it (0 is the farthest; -1: none did)."""

    method: str | None = None
    method_layer: int = -1
    variant: str | None = None
    variant_layer: int = -1

    @property
    def name(self) -> str:
        """`METHOD.VARIANT`, or `METHOD` where there is no variant."""
        return f"{self.method}.{self.variant}" if self.variant else f"{self.method}"

    @property
    def presets(self) -> tuple[str, ...]:
        """The names of the presets that hold, the more special last."""
        return tuple(dict.fromkeys((f"{self.method}", self.name)))


def layer_of(tree: Node) -> tuple[Layer, list[str]]:
    """A file's tree as a layer, and a line for each preset that is no mapping or chooses what it cannot."""
    entries = dict(tree.value) if isinstance(tree.value, dict) else {}
    presets = entries.pop("presets", None)
    blocks = Node(entries, tree.where)
    if presets is None or presets.value is None:
        return Layer(blocks, {}), []
    if not isinstance(presets.value, dict):
        return Layer(blocks, {}), [
            f"{presets.where}: presets: expected a mapping from METHOD or METHOD.VARIANT to keys"
        ]
    good = {name: node for name, node in presets.value.items() if isinstance(node.value, dict)}
    taken = ("method", "variant", "extends", "presets")
    bad = [
        f"{node.where}: {key_name(('presets', name))}: expected a mapping, got {shown(plain(node))}"
        for name, node in presets.value.items()
        if name not in good and node.value is not None
    ]
    bad += [
        f"{node.value[key].where}: {key_name(('presets', name, key))}: a preset cannot choose this"
        for name, node in good.items()
        for key in taken
        if isinstance(node.value, dict) and key in node.value
    ]
    return Layer(blocks, {name: _said_by(_without(node, taken), name) for name, node in good.items()}), bad


def choice(layers: Sequence[Layer]) -> Choice:
    """The method and the variant that the nearest layer names."""
    return Choice(*_nearest(layers, "method"), *_nearest(layers, "variant"))


def resolved(files: Sequence[Layer], given: Layer, presets: Sequence[str]) -> Node:
    """All files, the farthest first, and the command line over them, as one tree; `presets` hold, the more special last."""
    tree = Node({}, "")
    for file in files:
        tree = _over(tree, file.blocks)
        for name in presets:
            if name in file.presets:
                # The file stays the place of what is missing; only the keys that the preset names come from there.
                tree = Node(_over(tree, file.presets[name]).value, tree.where)
    return Node(_over(tree, given.blocks).value, tree.where)


def _over(tree: Node, nearer: Node) -> Node:
    """What is nearer laid over a tree; a length in steps takes back one in time, and the other way round."""
    said = [key for key in _LENGTH if (node := _at(nearer, ("run", key))) is not None and node.value is not None]
    if len(said) == 1 and _at(tree, ("run", _LENGTH[said[0]])) is not None:
        where = _at(nearer, ("run", said[0])).where
        tree = merge(tree, Node({"run": Node({_LENGTH[said[0]]: Node(None, where)}, where)}, where))
    return merge(tree, nearer)


def without_foreign_names(
    layers: Sequence[Layer], chosen: Choice, known: Mapping[str, Terms]
) -> tuple[list[Layer], list[str]]:
    """The layers without the weights and options that only other methods have, and a line for each that was left out.

    A recipe that says something to its own method can so be played by another one, which a nearer layer chooses. What is
    written beside that choice, or nearer, stays: there it is a mistake.
    """
    if chosen.method not in known:
        return list(layers), []
    found, lines = list(layers), []
    for block, what in (("weights", "term"), ("options", "option")):
        names = {method: terms.names if block == "weights" else tuple(terms.options) for method, terms in known.items()}
        own = names[chosen.method]
        foreign = {name for of_one in names.values() for name in of_one} - set(own)
        has = f"it has {', '.join(own)}" if own else "it has none"
        for number, layer in enumerate(found[: max(chosen.method_layer, 0)]):
            said = layer.value((block,))
            if said is None or not isinstance(said.value, dict):
                continue
            lines += [
                f"{node.where}: {block}.{name}: left out, since {chosen.method} has no such {what} ({has})"
                for name, node in said.value.items()
                if name in foreign and (node.value if block == "weights" else node.value is not None)
            ]
            kept = {name: node for name, node in said.value.items() if name not in foreign}
            found[number] = layer.with_blocks({block: Node(kept, said.where)})
    return found, lines


def with_weights_of_terms(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with `terms: {cwd: 1.0}` written as `terms: {cwd: {weight: 1.0}}`, so that options lie beside a weight."""

    def long(tree: Node) -> Node:
        terms = _at(tree, ("terms",))
        if terms is None or not isinstance(tree.value, dict) or not isinstance(terms.value, dict):
            return tree
        said = {
            name: node if isinstance(node.value, dict) or node.value is None
            else Node({"weight": node}, node.where, node.preset)
            for name, node in terms.value.items()
        }  # fmt: skip
        return Node({**tree.value, "terms": Node(said, terms.where, terms.preset)}, tree.where, tree.preset)

    return [layer.changed(long) for layer in layers]


def with_whole_lists(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with mappings that a nearer one replaces as a whole, see `whole_lists`."""
    return [layer.changed(whole_lists) for layer in layers]


def held_back(layers: Sequence[Layer], chosen: Choice) -> list[str]:
    """A line for each value that a file wrote for the choice before this one, and that holds over a preset of this one.

    It is nearer to the user than the preset; but whoever chooses another method or variant should know.
    """
    said: dict[Key, tuple[int, Node]] = {}  # by the nearest of the presets that hold
    for number, layer in enumerate(layers):
        for name in chosen.presets:
            said |= {key: (number, node) for key, node in _leaves(layer.presets.get(name))}
    lines: list[str] = []
    for key, (number, node) in said.items():
        nearer = [(at, over) for at in range(number + 1, len(layers)) if (over := layers[at].value(key))]
        if not nearer or choice(layers[: nearer[-1][0] + 1]).presets == chosen.presets:
            continue
        over = nearer[-1][1]
        if plain(over) != plain(node):
            says = f"{shown(plain(over))} holds, where preset {node.preset} would say {shown(plain(node))}"
            lines.append(f"{over.where}: {key_name(key)}: {says}")
    return lines


def without_effect(layers: Sequence[Layer], chosen: Choice) -> list[str]:
    """A line for a variant of the command line that no preset is for, beside the values that it leaves as they are."""
    variant = layers[-1].value(("variant",))
    if not chosen.variant or variant is None or any(chosen.name in layer.presets for layer in layers):
        return []
    return [f"{variant.where}: variant: {chosen.variant} changes nothing, since there is no preset {chosen.name}"]


def _nearest(layers: Sequence[Layer], key: str) -> tuple[str | None, int]:
    """The text of a key in the nearest layer that has it (None: it is no text), and the number of that layer."""
    for number in reversed(range(len(layers))):
        node = layers[number].value((key,))
        if node is not None:
            return node.value if isinstance(node.value, str) else None, number
    return None, -1


def _at(tree: Node, key: Key) -> Node | None:
    """The node at a key, or the scalar that stands in the place of a block around it; None: nothing is said."""
    for part in key:
        if not isinstance(tree.value, dict):
            return tree
        if part not in tree.value:
            return None
        tree = tree.value[part]
    return tree


def _leaves(tree: Node | None, key: Key = ()) -> Iterator[tuple[Key, Node]]:
    """All values below a node that are no blocks, by key."""
    if tree is None:
        return
    if not isinstance(tree.value, dict):
        yield key, tree
        return
    for part, node in tree.value.items():
        yield from _leaves(node, (*key, part))


def _without(node: Node, keys: Sequence[str]) -> Node:
    assert isinstance(node.value, dict)
    return Node({key: child for key, child in node.value.items() if key not in keys}, node.where, node.preset)


def _said_by(node: Node, preset: str) -> Node:
    """The same tree, all of it said by a preset."""
    if isinstance(node.value, dict):
        return Node({key: _said_by(child, preset) for key, child in node.value.items()}, node.where, preset)
    return Node(node.value, node.where, preset)
