"""Training of DCGAN's four documented runs."""

EXIT_FAILED = 1  # something that was started did not finish
EXIT_BAD_INPUT = 2
EXIT_PEER_LOST = 3  # of a process that had to end because another one did
EXIT_INTERRUPTED = 130

#: What `adversarial_step` measures, in order. D(x) and D(G(z)) are both taken before D's update.
MEASURES = ("loss_d", "loss_d_real", "loss_d_fake", "loss_g", "d_x", "d_g_z")


class UserError(ValueError):
    """A user's mistake, reported in one line: what is wrong, where, and what would be right.

    The command line prints it and exits with 2. Any other exception is a bug and keeps its traceback.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def counted(n: int, noun: str) -> str:
    """Return '1 run', '2 runs'."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def one_line(text: str) -> str:
    """Return the text made safe to print: one line, no control characters, and only the two ends of a long text."""
    if len(text) > 1500:
        text = f"{text[:700]} [...] {text[-700:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0].removesuffix(":")) if lines else type(error).__name__
