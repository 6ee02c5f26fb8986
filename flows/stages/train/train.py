"""Stage 3: the score is learned from the training split and certified on the others.

Reads `whitened` and `normals`; publishes `checkpoints`:

    checkpoints/step-.../   tensors.safetensors (model, average, best, optimizer, calibration,
                            matching)
                            meta.json (loss, history, precision)
    attrs: figures (steps, J_G on validation [nats]), history of the training, its rollbacks

A training that was stopped goes on from its newest state (flows/stages/train/session). With a
Gaussian model there is nothing to learn; the state then only names the baseline.
"""

import logging
import time as clock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from dask.system import CPU_COUNT

from flows.config.schema import RunConfig
from flows.processes.transform_cache import share_tables
from flows.progress import Progress
from flows.stages.base import Receipt
from flows.stages.content_keys import key_of, lineage, training_family, training_parent
from flows.stages.train.session import Session
from flows.stages.trained_model import device_of
from pipeline.network.data_parallel import Group, joined
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training import checkpoints

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger("spherescore")
STAGE = "train"
KIND = "checkpoints"


def in_child(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The stage in a process of its own (flows.processes.child), which is alone on the machine."""
    share_tables()
    torch.set_num_threads(CPU_COUNT)
    config = RunConfig.from_dict(arguments["config"])
    receipt = run(config, config.layout, None, progress)
    assert receipt is not None
    return receipt.to_dict()


def as_rank(arguments: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    """One rank of a training (flows.stages.train.ranks), in a process of its own; rank 0 has the
    receipt."""
    share_tables()
    torch.set_num_threads(1)
    config = RunConfig.from_dict(arguments["config"])
    rank, size, address = (arguments[name] for name in ("rank", "size", "address"))
    gpu = device_of(config).type == "cuda"
    with joined(rank, size, address, gpu=gpu) as group:
        receipt = run(config, config.layout, None, progress, group)
    return receipt.to_dict() if receipt is not None else None


def run(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client | None",
    progress: Progress,
    group: Group = Group(),  # noqa: B008  it is frozen
) -> Receipt | None:
    """Train, or go on training, and publish the last state with the best weights in it.

    All ranks of a group train; the first one saves, publishes and has the receipt.
    """
    began = clock.monotonic()
    content = key_of(STAGE, config, layout)
    parent = training_parent(config, layout) if content != training_family(config, layout) else None
    directory = layout.artifact(KIND, content)
    normals = artifacts.open_published(layout, "normals").load()
    if config.train.model == "network":
        attrs = _train_network(Session(config, layout, directory, normals, parent, group), progress)
    else:
        attrs = _name_baseline(config, directory)
    if attrs is None:
        return None
    attrs |= {
        "family": training_family(config, layout),
        "lineage": lineage(config, layout),
        "started_from": parent.digest if parent else "",
        "config": config.to_dict(),
    }
    published = checkpoints.publish(layout, content, attrs)
    return Receipt.of(STAGE, published, seconds=clock.monotonic() - began)


def _train_network(session: Session, progress: Progress) -> dict[str, Any] | None:
    while not session.finished:
        session.advance()
        progress(*session.told())
    return session.finish(progress) if session.group.rank == 0 else None


def _name_baseline(config: RunConfig, directory: Any) -> dict[str, Any]:
    name = config.train.model.removeprefix("gaussian:")
    checkpoints.save(directory, 0, {"empty": np.zeros(0, np.float32)}, {"baseline": name})
    return {"figures": {"steps": 0, "model": config.train.model}}
