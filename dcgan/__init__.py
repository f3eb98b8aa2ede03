"""Training of DCGAN's four documented runs. Knows nothing of `analysis`."""


class UserError(ValueError):
    """A user's mistake, told in one line: what is wrong, where, and what would be right.

    The command line prints it and exits with 2; anything else that is raised is a bug and keeps its traceback.
    """
