"""docs/configuration.md says what the schema says."""

import sys
import tomllib
from pathlib import Path

from flows.config.page import page
from flows.config.schema import RunConfig
from flows.config.strict import adapter

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_of_the_configuration_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: make configuration"


def test_every_key_is_on_the_page_in_a_row_of_its_own() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    sections = adapter(RunConfig).json_schema()["$defs"].values()
    assert len(rows) == sum(len(section["properties"]) for section in sections)
    assert all(line.count("|") == 5 for line in rows)


def test_defaults_on_the_page_are_values_of_toml() -> None:
    cells = [line.split(" | ")[2] for line in page().splitlines() if line.startswith("| `")]
    for cell in cells:
        if cell.startswith("`"):
            tomllib.loads(f"key = {cell.strip('`')}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} is written\n")
