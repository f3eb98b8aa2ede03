"""Training of DCGAN's four documented runs. Knows nothing of `analysis`."""


class UserError(ValueError):
    """A user's mistake, told in one line: what is wrong, where, and what would be right.

    The command line prints it and exits with 2; anything else that is raised is a bug and keeps its traceback.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """The text as it may be shown: what a file or a name brought along breaks no line and steers no terminal."""
    if len(text) > 1500:
        text = f"{text[:700]} [...] {text[-700:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type's name when it has no message."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0]) if lines else type(error).__name__
