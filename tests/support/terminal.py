"""Commands on a terminal, as a person runs them."""

import os
import pty
import subprocess


def on_a_terminal(command, *, env, cwd=None):
    """Run a command whose input and output are a terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=cwd, env={**env, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
        return process.wait(30), shown.decode()
