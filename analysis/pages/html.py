"""How pages are made of templates: in HTML whatever comes from files is escaped; Markdown has `markdown.cell`."""

import base64
from collections.abc import Callable
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str, **filters: Callable) -> jinja2.Template:
    """The template `name` of `templates/`; a name that it is not given is an error, not a blank."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def data_uri(content: bytes, kind: str) -> str:
    """The content as an address that needs no other file; kind is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
