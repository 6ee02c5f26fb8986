"""docs/inputs.md says what the tests show."""

import importlib
import re
import sys
from pathlib import Path

from tests.storage.imitations import ROWS, TITLES, page

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"


def read_all_rows() -> None:
    here = Path(__file__).parent
    for file in sorted(here.rglob("test_*.py")):
        if "@row(" in file.read_text() and file != Path(__file__):
            place = file.relative_to(here).with_suffix("").parts
            importlib.import_module(".".join(("tests", "storage", *place)))


def test_the_page_of_inputs_is_current() -> None:
    read_all_rows()
    assert PAGE.read_text() == page(), "write it anew: make inputs"


def test_every_row_is_a_test_of_a_known_subject() -> None:
    read_all_rows()
    assert len(ROWS) > 60
    assert {row.subject for row in ROWS.values()} == set(TITLES)
    assert all(name.startswith("test_") for name in ROWS)
    assert not [row for row in ROWS.values() if re.search(r"[|\n]", row.input + row.result)]


if __name__ == "__main__":
    from tests.storage.test_inputs_page import read_all_rows as read

    read()
    from tests.storage import imitations

    PAGE.write_text(imitations.page())
    sys.stdout.write(f"{PAGE.name}: {len(imitations.ROWS)} rows\n")
