"""Words for numbers, and text from files as Markdown that stays what it is: no HTML, no link of its own."""

import math
from collections.abc import Sequence
from numbers import Number
from typing import Any


def number(value: Any, decimals: int | None = None, *, percent: bool = False) -> str:
    """A number for people, with so many decimals, else three digits; a dash for an unknown one."""
    is_number: bool = isinstance(value, Number)  # None and pandas' NA are none
    if not is_number or not math.isfinite(value):
        return "-"
    if percent:
        return f"{100 * value:.{1 if decimals is None else decimals}f} %"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def setting(value: Any) -> str:
    """A setting's value as YAML and people write it."""
    if isinstance(value, float):
        digits, exponent = f"{value:.6e}".split("e")
        return f"{float(digits):g}e{int(exponent)}" if 0 < abs(value) < 0.001 else f"{value:g}"
    return "null" if value is None else str(value)


def capital(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def cell(text: object) -> str:
    """Text that can't break out of a line or cell of Markdown, nor become HTML, a link or a picture there."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))
    for mark, harmless in (("|", "\\|"), ("<", "&lt;"), ("![", "!\\["), ("](", "]\\(")):
        line = line.replace(mark, harmless)
    return line


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one the head, as a table whose columns line up in a terminal too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
