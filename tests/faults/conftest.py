"""What the tests of broken run folders share."""

import functools
import logging

import pytest
from support.lab import Lab

from analysis.compare import build
from analysis.pages import report


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    logging.getLogger("analysis").setLevel(logging.CRITICAL)  # thousands of lines
    with pytest.MonkeyPatch.context() as patched:
        # Neither is what is tested here, and they take most of a case's time: the template is compiled once, and the
        # repository's own experiments are read once.
        patched.setattr(report, "template", functools.cache(report.template))
        patched.setattr(build, "_in_repository", functools.cache(build._in_repository))
        yield Lab(tmp_path_factory.mktemp("lab"))
    logging.getLogger("analysis").setLevel(logging.NOTSET)
