"""Words for numbers."""

import math
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


def counted(n: int, noun: str) -> str:
    """'1 run', '2 runs'."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def about(seconds: float) -> str:
    """'about 20 s', 'about 3 min', 'about 2.5 h'."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
