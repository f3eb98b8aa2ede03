"""Text from files -> Markdown that stays what it is: no cell that breaks its table, no HTML, no link of its own."""

from collections.abc import Sequence


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
