"""What went wrong decides the exit code, wherever it was met."""

import errno
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.cluster.map_units import UnitFailed
from flows.config.schema import RunConfig
from flows.errors import ExitCode, exit_code_of, is_full_disk, one_line
from flows.plan.plan import NotEnoughSpace, preflight
from flows.progress import at_intervals
from storage.artifacts import units
from storage.artifacts.layout import StoreLayout

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), 30),
        (OSError(errno.EDQUOT, "quota"), 30),
        (OSError(errno.EIO, "broken"), 31),
        (MemoryError(), 41),
        (OSError(errno.ENOMEM, "no memory"), 41),
        (OSError(errno.EADDRINUSE, "a port is taken"), 33),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 33),
        (TimeoutError(), 33),
        (socket.gaierror(-2, "unknown host"), 33),
        (PermissionError(errno.EACCES, "not permitted"), 31),
        (UnitFailed("unit 3: full", 30), 30),
        (ValueError("a mistake"), 1),
    ],
)
def test_errors_have_codes(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


def test_the_exit_codes_are_those_that_the_docs_explain() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \|", page, re.MULTILINE)
    explained = {int(code) for row in rows for code in row.split(", ")}
    assert explained == {int(code) for code in ExitCode}


def test_every_exit_code_that_is_used_has_a_name() -> None:
    used = {
        int(number)
        for package in ("flows", "storage", "pipeline")
        for file in (ROOT / package).rglob("*.py")
        for number in re.findall(r"^    exit_code = (\d+)\n", file.read_text(), re.MULTILINE)
    }
    assert used <= {int(code) for code in ExitCode}
    for file in (ROOT / "flows").rglob("*.py"):
        assert not re.search(r"^    exit_code = \d+\n", file.read_text(), re.MULTILINE), file


@pytest.mark.parametrize(
    "error", [TimeoutError(), AssertionError(), OSError(), ValueError("  "), KeyError("\n")]
)
def test_no_message_is_empty(error: Exception) -> None:
    try:
        _through_the_house(error)
    except Exception as raised:
        said = one_line(raised)
    assert re.search(r"\w", said.removeprefix(f"{type(error).__name__}: "))
    if not str(error).strip():
        assert "flows.progress, progress (line" in said
        assert "run again" in said


def _through_the_house(error: Exception) -> None:
    def tell(done: int, total: int, text: str) -> None:
        raise error

    at_intervals(0.0, tell)(1, 1, "")


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
