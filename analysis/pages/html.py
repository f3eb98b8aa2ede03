"""Pages made from templates: HTML escapes everything that comes from files; Markdown has `words.cell`."""

import base64
import hashlib
import os
import sys
import webbrowser
from pathlib import Path

import jinja2

from analysis.pages.words import cell, number, setting
from dcgan import counted

TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str) -> jinja2.Template:
    """The template `name` of `templates/`; a variable that it is not given is an error, not a blank."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": _sha256, "cell": cell, "setting": setting, "commas": "{:,}".format}
    environment.globals |= {"number": number, "counted": counted}
    return environment.get_template(name)


def data_uri(content: bytes, kind: str) -> str:
    """The content as an address that needs no other file; kind is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def show(page: Path) -> None:
    """Open the page where there is a screen and a browser; otherwise the caller has printed its path."""
    if has_screen():
        webbrowser.open(page.resolve().as_uri())


def has_screen() -> bool:
    """Return whether somebody would see a browser window."""
    # BROWSER: editors and WSL open pages on the user's own screen by it.
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    return (sys.platform != "linux" or named) and not os.environ.get("CI")


def _sha256(text: str) -> str:
    """The hash by which the content security policy admits a style or a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
