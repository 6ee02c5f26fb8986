"""Ranks in processes of their own, over gloo, train what one process trains."""

import itertools
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.network.data_parallel import Group, joined
from pipeline.network.train import TrainingDiverged
from tests.pipeline.network.test_train import some_training, two_point_fields
from tests.services import free_port

BATCH = 8


def run(training, until):
    """Steps on this rank's part of each batch, with covariates that are withheld at random."""
    x, condition = two_point_fields(64, 1), torch.rand((64, 3), generator=torch.Generator())
    while training.step < until:
        rows = (torch.arange(BATCH) + BATCH * (training.step % 8))[training.group.part(BATCH)]
        training.advance(x[rows], condition[rows], batch=BATCH)
        if training.validation_due:
            training.validate(x[:16], condition[:16], draws=2)
    return training


def rank_of_two(rank, address, place, poison):
    torch.set_num_threads(1)
    with joined(rank, 2, address, gpu=False, wait=60.0) as group:
        training = some_training(group=group, covariates=2)
        training.agree()
        (place / f"listens-{rank}").write_text("\n".join(listening(os.getpid())))
        if poison == "nan" and rank == 1:
            with torch.no_grad():
                next(training.model.parameters()).fill_(float("nan"))
        if poison == "death" and rank == 1:
            run(training, 2)
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            run(training, 3)
            if rank == 0:
                np.savez(place / "halfway.npz", **training.to_tensors())
                (place / "halfway.json").write_text(json.dumps(training.to_meta()))
            run(training, 6)
        except TrainingDiverged:
            (place / f"diverged-{rank}").touch()
            return
        np.savez(place / f"rank-{rank}.npz", **training.to_tensors())


def two_ranks(place, poison=""):
    address = f"127.0.0.1:{free_port()}"
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=rank_of_two, args=(rank, address, place, poison)) for rank in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    return [rank.exitcode for rank in ranks]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("whole", [8, 9, 31])
def test_the_parts_of_a_batch_are_the_batch(size: int, whole: int):
    parts = [list(range(whole))[Group(rank, size).part(whole)] for rank in range(size)]
    assert [*itertools.chain(*parts)] == list(range(whole))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def listening(pid: int) -> list[str]:
    """Addresses on which a process listens."""
    found = psutil.Process(pid).net_connections("inet")
    return [one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN]


def test_ranks_that_meet_on_loopback_listen_nowhere_else(tmp_path: Path):
    assert two_ranks(tmp_path) == [0, 0]
    heard = [(tmp_path / f"listens-{rank}").read_text().split() for rank in (0, 1)]
    assert len(heard[0]) == 2 and {*heard[0], *heard[1]} == {"127.0.0.1"}


def moved(tensors) -> np.ndarray:
    """How far the weights are from where they began."""
    before = some_training(covariates=2).to_tensors()
    names = [name for name in sorted(before) if name.startswith("model/")]
    return np.concatenate([(tensors[name] - before[name]).ravel() for name in names])


def apart(ours, theirs) -> float:
    """Distance of two trainings, as a part of the way."""
    return float(np.linalg.norm(moved(ours) - moved(theirs)) / np.linalg.norm(moved(theirs)))


def test_a_batch_in_parts_gives_the_same_weights_up_to_rounding():
    """A step to seven digits; then AdamW takes the rounding of a small gradient for its sign."""
    for steps, most in ((1, 1e-5), (6, 0.05)):
        whole = run(some_training(covariates=2), steps).to_tensors()
        parts = run(some_training(covariates=2, accumulate=3), steps).to_tensors()
        other = run(some_training(covariates=2, seed=1), steps).to_tensors()
        assert 0 < apart(parts, whole) < most
        assert apart(other, whole) > 0.5


def test_two_ranks_have_the_weights_of_one_that_accumulates(tmp_path: Path):
    assert two_ranks(tmp_path) == [0, 0]
    first, second = (np.load(tmp_path / f"rank-{rank}.npz") for rank in (0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert apart(first, run(some_training(covariates=2, accumulate=2), 6).to_tensors()) < 0.05
    fewer = some_training(covariates=2)  # what two began, one goes on with
    meta = json.loads((tmp_path / "halfway.json").read_text())
    fewer.restore(3, dict(np.load(tmp_path / "halfway.npz")), meta)
    assert 0 < apart(run(fewer, 6).to_tensors(), first) < 0.05


def test_ranks_decide_together_that_a_loss_is_no_number(tmp_path: Path):
    assert two_ranks(tmp_path, "nan") == [0, 0]
    assert sorted(path.name for path in tmp_path.glob("diverged*")) == ["diverged-0", "diverged-1"]


def test_a_rank_that_is_lost_ends_the_other(tmp_path: Path):
    first, second = two_ranks(tmp_path, "death")
    assert second == -signal.SIGKILL
    assert first == 1
