"""Whether a deployed stage waits for a GPU: asked of those who compute."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.config.schema import RunConfig
from flows.deployments.gpu_limit import on_gpu
from tests.services import dask_cluster
from tests.small import small_table


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    return small_table(tmp_path)


def config(table: dict[str, Any], **sections: dict[str, Any]) -> RunConfig:
    return RunConfig.from_dict(
        {name: {**values, **sections.get(name, {})} for name, values in table.items()}
    )


def test_a_gpu_of_the_workers_counts_and_not_that_of_the_flow(
    table: dict[str, Any], tmp_path: Path
) -> None:
    for gpus in (0, 1):
        with dask_cluster(tmp_path / f"workers-{gpus}", workers=1, gpus=gpus) as started:
            there = config(table, cluster={"kind": "address", "address": started.address})
            assert on_gpu("generate", there) is bool(gpus)
            assert on_gpu("verify", there) is bool(gpus)


@pytest.fixture
def a_gpu_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield


def test_jobs_and_pods_have_the_gpus_that_are_asked_for(
    table: dict[str, Any], a_gpu_here: None
) -> None:
    for gpus in (0, 1):
        slurm = {"kind": "slurm", "workers": 1, "memory": "4GiB", "gpus": gpus}
        asked = config(table, cluster=slurm, train={"ranks": 2})
        assert on_gpu("generate", asked) is on_gpu("train", asked) is bool(gpus)
        assert on_gpu("train", config(table, cluster=slurm)), "a single training is done here"


def test_a_device_that_is_named_is_believed(table: dict[str, Any], a_gpu_here: None) -> None:
    assert on_gpu("train", config(table)) and on_gpu("generate", config(table))
    assert not on_gpu("train", config(table, train={"device": "cpu"}))
    far = {"kind": "address", "address": "tcp://127.0.0.1:9"}
    assert on_gpu("generate", config(table, cluster=far, train={"device": "cuda"}))
