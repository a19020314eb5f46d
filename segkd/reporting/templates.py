"""The pages' templates, filled in."""

from __future__ import annotations

from pathlib import Path


def rendered(template: str, **values: object) -> str:
    """A template of this folder with all its values; what is not marked as safe is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)
