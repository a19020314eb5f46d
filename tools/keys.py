"""Write the tables of all recipe keys into docs/recipes.md, or check that they are what the code says.

python tools/keys.py [--check]
"""

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.recipe.reference import Key, blocks, keys

PAGE = Path(__file__).resolve().parents[1] / "docs/recipes.md"
BEGIN, END = "<!-- keys -->\n", "<!-- end keys -->\n"


def render(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + "".join(tables()) + END + after


def tables() -> list[str]:
    """A table for the keys of no block, and one for each block."""
    known, said = keys(), blocks()
    alone = [key for key in known if key.name.partition(".")[0] not in said]
    parts = [f"\n{table(alone)}\n"]
    for block, what in said.items():
        inside = [key for key in known if key.name.partition(".")[0] == block]
        parts.append(f"\n### {block}\n\n{what[:1].upper()}{what[1:]}.\n\n{table(inside)}\n")
    return parts


def table(some: list[Key]) -> str:
    """Rows of key, default, type and description."""
    defaults = [key.default if key.default == "required" else f"`{key.default}`" for key in some]
    rows = [
        f"| `{key.name}` | {default} | {_values(key)} | {key.description} |"
        for key, default in zip(some, defaults, strict=True)
    ]
    return "\n".join(["| key | default | values | |", "|---|---|---|---|", *rows])


def _values(key: Key) -> str:
    """What a key may be; the methods are too many for a row, and have a page."""
    return "[any of these](methods.md)" if key.name == "method" else f"`{key.type}`"


@click.command(help=__doc__.split("\n")[0])
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when the page is not what the code says.")
def main(check: bool) -> None:
    text = PAGE.read_text("utf-8")
    made = render(text)
    if not check:
        PAGE.write_text(made, "utf-8")
    elif made != text:
        raise click.ClickException(f"{PAGE}: not what the code says: python tools/keys.py")


if __name__ == "__main__":
    main()
