"""All errors of storage that have an exit code are in one file, and the page says what to do."""

import re
from pathlib import Path

from storage import errors

HOUSE = Path(__file__).parent.parent.parent
DEFINED = [one for one in vars(errors).values() if isinstance(one, type)]


def test_no_other_file_of_storage_gives_a_class_an_exit_code():
    for path in (HOUSE / "storage").rglob("*.py"):
        given = re.findall(r"^    exit_code = ", path.read_text(), re.M)
        assert bool(given) == (path.name == "errors.py" and path.parent.name == "storage"), path


def test_the_page_has_every_exit_code_of_storage():
    page = (HOUSE / "docs" / "reliability.md").read_text()
    codes = {one.exit_code for one in DEFINED}
    assert len(codes) > 8
    assert all(f"| {code} |" in page for code in codes)
