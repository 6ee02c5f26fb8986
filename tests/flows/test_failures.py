"""What went wrong decides the exit code, wherever it was met."""

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.cluster.map_units import UnitFailed
from flows.config.schema import RunConfig
from flows.errors import exit_code_of, is_full_disk
from flows.plan.plan import NotEnoughSpace, preflight
from storage.artifacts import units
from storage.artifacts.layout import StoreLayout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), 30),
        (OSError(errno.EDQUOT, "quota"), 30),
        (OSError(errno.EIO, "broken"), 31),
        (MemoryError(), 41),
        (UnitFailed("unit 3: full", 30), 30),
        (ValueError("a mistake"), 1),
    ],
)
def test_errors_have_codes(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


def test_every_exit_code_is_explained() -> None:
    root = Path(__file__).parents[2]
    used = {
        int(number)
        for package in ("flows", "storage", "pipeline")
        for file in (root / package).glob("*.py")
        for number in re.findall(r"exit_code = (\d+)\n", file.read_text())
    }
    page = (root / "docs/reliability.md").read_text()
    explained = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert len(used) > 10 and used <= explained


def test_a_full_disk_is_known_however_deep() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise ValueError("cannot write") from error
    except ValueError as error:
        assert is_full_disk(error)
    assert not is_full_disk(ValueError("no"))


def test_a_stage_that_meets_a_full_disk_says_what_there_is_and_what_it_needs(
    config: RunConfig, here: Any, monkeypatch: pytest.MonkeyPatch, quiet: Any
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(units, "write_together", full)
    monkeypatch.setattr("flows.run.client_on_demand", lambda *arguments: _Given(here))
    said = r"ingest met a full disk: .* has .*free.*, ingest writes up to .*in \d+ files"
    with pytest.raises(NotEnoughSpace, match=said):
        runs.run_alone(config, "ingest")


def test_too_few_inodes_are_refused_beforehand(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.plan.plan.free_inodes", lambda path: 3)
    with pytest.raises(NotEnoughSpace, match=r"room for 3 more files.*ingest make up to \d+"):
        preflight(config, StoreLayout(config.run.root), ["ingest"])


class _Given:
    def __init__(self, client: Any) -> None:
        self.client = client

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *error: object) -> None:
        pass
