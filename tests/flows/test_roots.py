"""A root is a place, however it is spelled and from wherever it is looked at."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.cli.main import main
from flows.config.schema import RunConfig


@pytest.mark.parametrize("made_as", ["runs/a", "."])
def test_every_spelling_of_a_root_finds_what_is_up_to_date(
    made_as: str,
    table: dict[str, Any],
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    (home / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    monkeypatch.chdir(home)
    table["run"]["root"] = made_as
    receipt = runs.run_alone(RunConfig.from_dict(table), "ingest")
    assert not receipt.skipped
    place = home / made_as
    spellings = {
        home: [made_as, f"{made_as}/", f"./{made_as}", f"{place}/", f"deep/../{made_as}"],
        home / "deep/er": [f"../../{made_as}", f"../../../link/{made_as}"],
        tmp_path: [f"home/{made_as}", f"link/{made_as}", str(tmp_path / "link" / made_as)],
    }  # fmt: skip
    for directory, roots in spellings.items():
        for root in roots:
            monkeypatch.chdir(directory)
            table["run"]["root"] = root
            capsys.readouterr()
            assert main(["status", write_config(table), "--json"]) == 0
            said = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert said["stages"]["ingest"]["state"] == "up to date", (directory, root)
            assert said["stages"]["ingest"]["digest"] == receipt.digest
            assert runs.run_alone(RunConfig.from_dict(table), "ingest").skipped
            assert main(["check", write_config(table)]) == 0
            assert main(["clean", write_config(table), "--yes"]) == 0
            assert (place / "fields.zarr").resolve().is_dir(), (directory, root)
    assert os.readlink(place / "fields.zarr").startswith("artifacts/")
