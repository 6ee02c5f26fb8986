"""Prefect's artifacts of one key are versions of one thing, for all roots of a server together."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.config.schema import RunConfig
from flows.deployments.ui.artifacts import key_of


def test_each_root_has_keys_of_its_own_however_it_is_spelled(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def key(root: str) -> str:
        return key_of(RunConfig.from_dict({**table, "run": {"root": root}}), "train-progress")

    roots = ["runs/a", "runs/b", "other/a", "s3://bucket/runs/a", "Läufe/Größe 1", "x" * 200]
    keys = [key(root) for root in roots]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"train-progress-[a-z0-9-]+", one) for one in keys)
    assert all(len(one) < 100 for one in keys)
    assert keys[0] == key("runs/a/") == key(str(tmp_path / "runs/a")) == key("./runs/../runs/a")
