"""One training on several workers: what it learns, and what a lost rank costs."""

import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from flows import run as runs
from flows.config.schema import RunConfig
from flows.stages.base import published_input
from flows.stages.train import ranks
from storage.artifacts.layout import StoreLayout
from storage.training import checkpoints
from tests.services import free_port, until
from tests.small import run_stages, small_table

STEPS = 12


@pytest.fixture(scope="module")
def whitened(client: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tables of a small run, up to its preprocessing."""
    table = small_table(tmp_path_factory.mktemp("ranks"))
    table["train"] = {"steps": STEPS, "width": 8, "blocks": 1, "batch": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))
        run_stages(table, "ingest", "preprocess")
    return table


@pytest.fixture(scope="module")
def alone(
    whitened: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """What one process learns that takes each batch in two parts."""
    return trained(whitened, tmp_path_factory.mktemp("alone") / "run", accumulate=2)


@pytest.fixture
def on_workers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))


def trained(whitened: dict[str, Any], root: Path, **options: Any) -> dict[str, np.ndarray]:
    """Train a copy of the run with other options; the tensors of its last state."""
    table = copied(whitened, root)
    table["train"] |= options
    run_stages(table, "train")
    return tensors(table)


def copied(table: dict[str, Any], root: Path) -> dict[str, Any]:
    shutil.copytree(table["run"]["root"], root, symlinks=True)
    return {**table, "run": {"root": str(root)}, "train": dict(table["train"])}


def tensors(table: dict[str, Any]) -> dict[str, np.ndarray]:
    published = published_input(StoreLayout(table["run"]["root"]), "checkpoints")
    state = checkpoints.load_latest(published.path)
    assert state is not None and state.step == STEPS
    return state.tensors


def assert_alike(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Weights equal up to the rounding of sums in another order, which optimizers enlarge."""
    assert ours.keys() == theirs.keys()
    names = [name for name in sorted(ours) if name.startswith("model/")]
    one, other = (np.concatenate([t[name].ravel() for name in names]) for t in (ours, theirs))
    assert np.linalg.norm(one - other) < 1e-2 * np.linalg.norm(other)


@pytest.mark.long
@pytest.mark.usefixtures("on_workers")
def test_two_ranks_on_workers_learn_what_one_learns_and_a_killed_one_costs_no_bit(
    whitened: dict[str, Any],
    alone: dict[str, np.ndarray],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = trained(whitened, tmp_path / "two", ranks=2)
    assert_alike(alone, undisturbed)
    root, killed = tmp_path / "killed", list[int]()

    def kill_one() -> None:
        until(lambda: list(root.glob("artifacts/checkpoints-*/step-*")), 300)
        ranks = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "flows.stages.train.train:as_rank" in (process.info["cmdline"] or [])
        ]
        ranks[-1].kill()
        killed.append(ranks[-1].pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    monkeypatch.setattr(logging.getLogger("spherescore"), "propagate", True)
    with caplog.at_level(logging.INFO):
        again = trained(whitened, root, ranks=2)
    killer.join()
    assert killed and "a rank was lost" in caplog.text
    assert re.search(r"rank 0 on tls://\S+: train: goes on after step \d+", caplog.text)
    for name, values in undisturbed.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_torchrun_is_another_way_to_the_same(
    whitened: dict[str, Any],
    alone: dict[str, np.ndarray],
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], str],
) -> None:
    table = copied(whitened, tmp_path / "torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--master-port",
        str(free_port()),
        "-m",
        "flows.stages.train.ranks",
        write_config(table),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "published" in done.stderr
    assert_alike(alone, tensors(table))


def test_the_flow_imports_no_torch_for_a_training() -> None:
    assert "torch" not in _loaded_by_a_run_of(
        "flows.run", "flows.stages.train.ranks", "flows.processes.child"
    )


def _loaded_by_a_run_of(*modules: str) -> list[str]:
    code = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def test_a_rank_may_be_silent_as_long_as_a_unit_may(
    whitened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {**whitened, "cluster": {"workers": 1, "unit_minutes": 2.5}}
    heard: dict[str, float] = {}

    def call(target: str, arguments: Any, tell: Any, *, silence: float) -> None:
        heard[target] = silence

    monkeypatch.setattr("flows.processes.child.call", call)
    monkeypatch.setattr("distributed.get_worker", lambda: None)
    config = RunConfig.from_dict(table).to_dict()
    assert ranks._rank({"config": config, "rank": 0, "topic": "none"}) is None
    assert heard == {"flows.stages.train.train:as_rank": 150.0}
