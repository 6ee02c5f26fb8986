"""One training on several workers: what it learns, and what a lost rank costs."""

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
from flows.cluster import local_client
from flows.config import Cluster
from flows.stage import published_input
from storage import checkpoints
from storage.layout import StoreLayout
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


@pytest.fixture
def trained(
    whitened: dict[str, Any], tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, np.ndarray]]:
    """Train a copy of the run with other options; the tensors of its last state."""
    monkeypatch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))

    def train(name: str, **options: Any) -> dict[str, np.ndarray]:
        table = copied(whitened, tmp_path / name)
        table["train"] |= options
        run_stages(table, "train")
        return tensors(table)

    return train


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


def test_two_ranks_on_workers_learn_what_one_learns(
    trained: Callable[..., dict[str, np.ndarray]],
) -> None:
    alone = trained("alone", accumulate=2)
    assert_alike(alone, trained("two", ranks=2))
    assert "torch" not in _loaded_by_a_run_of("flows.run", "flows.ranks", "flows.child")


def test_torchrun_is_another_way_to_the_same(
    trained: Callable[..., dict[str, np.ndarray]],
    whitened: dict[str, Any],
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], str],
) -> None:
    table = copied(whitened, tmp_path / "torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "flows.ranks", write_config(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "published" in done.stderr
    assert_alike(trained("alone", accumulate=2), tensors(table))


def test_a_rank_that_is_killed_costs_no_bit(
    trained: Callable[..., dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    whitened: dict[str, Any],
    tmp_path: Path,
) -> None:
    undisturbed = trained("undisturbed", ranks=2)
    table = copied(whitened, tmp_path / "killed")
    table["train"] |= {"ranks": 2}
    layout = StoreLayout(table["run"]["root"])
    killed: list[int] = []

    def kill_one() -> None:
        until(lambda: list(layout.artifacts.glob("checkpoints-*/step-*")), 300)
        ranks = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "flows.train:as_rank" in (process.info["cmdline"] or [])
        ]
        ranks[-1].kill()
        killed.append(ranks[-1].pid)

    with local_client(Cluster(workers=2), tmp_path / "scratch") as client:
        monkeypatch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))
        killer = threading.Thread(target=kill_one)
        killer.start()
        run_stages(table, "train")
        killer.join()
    assert killed
    again = tensors(table)
    for name, values in undisturbed.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def _loaded_by_a_run_of(*modules: str) -> list[str]:
    code = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
