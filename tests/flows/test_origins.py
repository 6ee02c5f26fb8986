"""Errors that come back to themselves end, too."""

import subprocess
import sys

CYCLE = """
from flows.errors import is_full_disk
cause = ValueError("values")
try:
    try:
        raise RuntimeError("unit") from cause
    except RuntimeError as error:
        raise error.__cause__ from None
except ValueError as error:
    assert error.__context__.__cause__ is error
    assert not is_full_disk(error)
"""


def test_a_cause_that_is_raised_again_has_an_end() -> None:
    subprocess.run([sys.executable, "-c", CYCLE], check=True, timeout=60)
