"""How the HTML pages are made: one file each, whatever comes from files escaped."""

from collections.abc import Callable
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str, **filters: Callable) -> jinja2.Template:
    """The template `name` of `templates/`, with autoescape; a name that it is not given is an error, not a blank."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
