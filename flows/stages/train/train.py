"""Stage 3: the score is learned from the training split and certified on the others.

Reads `whitened` and `normals`; publishes `checkpoints`:

    checkpoints/step-.../   tensors.safetensors (model, average, best, optimizer, calibration,
                            matching)
                            meta.json (loss, history, precision)
    attrs: figures (steps, J_G on validation [nats]), history of the training, its rollbacks

A training that was stopped goes on from its newest state. One that diverges goes back to its last
validation, at most three times: which state that is depends on steps alone, not on when states were
saved, so a resumed training goes back to where an undisturbed one does. With a Gaussian model there
is nothing to learn; the state then only names the baseline.
"""

import logging
import time as clock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from torch import Tensor

from flows.config.schema import Period, RunConfig, within
from flows.processes.machine import SERIES_SHARE, machine_memory
from flows.processes.transform_cache import share_tables
from flows.progress import Progress
from flows.stages.base import Receipt
from flows.stages.conditions import condition_of
from flows.stages.content_keys import key_of, lineage, training_family, training_parent
from flows.stages.preprocess.normals import refit
from flows.stages.trained_model import certified_sampler, device_of, tensors_of, untrained
from pipeline.arrays import FloatArray
from pipeline.diffusion.matching import match
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.fit import Baseline, Series, left_out
from pipeline.network.data_parallel import Group, joined
from pipeline.network.score_network import native_precision
from pipeline.network.train import Training, TrainingConfig, TrainingDiverged
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training import checkpoints
from storage.training.batches import Batches

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger("spherescore")
STAGE = "train"
KIND = "checkpoints"

LOGGER = logging.getLogger("spherescore")
SECONDS_BETWEEN_STATES = 60.0
ROLLBACKS = 3  # returns to the last validation, after which a training is given up
MATCHED, MATCHING_STEPS = 128, 16  # fields and steps that match the flow to its spectra
FOLDS = 4  # stretches of the training period, each trained on with the law of the others


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
        attrs = _train_network(config, layout, directory, normals, progress, parent, group)
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
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=content,
        digest=published.digest,
        seconds=clock.monotonic() - began,
        figures=attrs["figures"],
    )


def _train_network(
    config: RunConfig,
    layout: StoreLayout,
    directory: Any,
    normals: xr.Dataset,
    progress: Progress,
    parent: artifacts.Published | None,
    group: Group,
) -> dict[str, Any] | None:
    device, state = device_of(config), checkpoints.load_latest(directory)
    precision = str(native_precision(device)).removeprefix("torch.")
    if state is not None:
        precision = state.meta["precision"]
    training = _beginning(config, normals, precision, group, parent)
    good = 0  # the step to go back to
    if state is not None:
        good = state.meta.get("good", 0)  # the last state of all does not tell
        training.restore(state.step, state.tensors, state.meta)
        training.seconds = float(state.meta.get("seconds", 60 * (config.train.minutes or 0)))
        LOGGER.info("train: goes on after step %d", state.step)
    elif parent is not None:
        LOGGER.info("train: begins with the weights of %s", parent.path.name)
    training.agree()

    x_train, conditions = training_series(layout, config.split.train)
    rows = climatology_terms(layout, config.split.train, normals)
    stretches = _stretches(config, x_train, conditions, rows, training.model.baseline, normals)
    held_out = artifacts.open_published(layout, "whitened").sel(
        time=within(config.split.validation)
    )
    x_held_out, condition_held_out = tensors_of(held_out)
    days = held_out["time"].values
    saved = clock.monotonic()
    while training.progress < 1:
        turn, number = divmod(training.step, len(stretches))
        batches, baseline = stretches[number]
        drawn = batches.batch_at(turn, group.part(batches.batch))
        x, condition = (torch.from_numpy(part).to(device) for part in drawn)
        try:
            training.advance(x, condition, baseline, batch=batches.batch)
        except TrainingDiverged as error:
            beginning = None
            if good == 0:
                beginning = _beginning(config, normals, precision, group, parent)
            _roll_back(training, directory, good, beginning, error)
            continue
        validated = training.validation_due
        if validated:
            training.validate(x_held_out.to(device), condition_held_out.to(device), days=days)
            good = training.step
        due = validated or clock.monotonic() - saved > SECONDS_BETWEEN_STATES
        if group.rank == 0 and training.progress < 1 and due:
            running = {
                **training.to_meta(),
                "precision": precision,
                "seconds": training.seconds,
                "good": good,
            }
            checkpoints.save(directory, training.step, training.to_tensors(), running, also=good)
            saved = clock.monotonic()
        progress(*_told(training))
    if group.rank > 0:
        return None
    # The finished state does not tell how long it took: equal trainings have equal digests.
    finished = {**training.to_meta(), "precision": precision}
    every = torch.from_numpy(conditions)
    tables = _finish(training, x_held_out.to(device), condition_held_out.to(device), every)
    checkpoints.save(directory, training.step, training.to_tensors() | tables, finished)
    best = max(training.history, key=lambda entry: entry["nats"])
    return {
        "figures": {
            "steps": training.step,
            "parameters": sum(p.numel() for p in training.model.parameters()),
            "J_G validation": f"{best['nats']:.1f} ± {best['error']:.1f}",
        },
        "history": training.history,
        "rollbacks": training.rollbacks,
        "seconds": training.seconds,
    }


def _beginning(
    config: RunConfig,
    normals: xr.Dataset,
    precision: str,
    group: Group,
    parent: artifacts.Published | None,
) -> Training:
    """The training before its first step, with the weights of the training it goes on from."""
    training = Training(
        model=untrained(config, normals, getattr(torch, precision)).to(device_of(config)),
        config=TrainingConfig(
            steps=config.train.steps,
            minutes=config.train.minutes,
            learning_rate=config.train.learning_rate,
            accumulate=config.train.accumulate,
            seed=config.run.seed,
        ),
        process=OrnsteinUhlenbeck(),
        times=certified_sampler(config).times,
        group=group,
    )
    if parent is not None:
        last = checkpoints.load_latest(parent.path)
        if last is None:
            raise artifacts.CorruptArtifact(
                f"{parent.path} holds no state that verifies, and this training goes on from it; "
                'run `spherescore check`, or set train.start = "scratch"'
            )
        training.begin_from(last.tensors)
    return training


def _roll_back(
    training: Training,
    directory: Any,
    good: int,
    beginning: Training | None,
    error: TrainingDiverged,
) -> None:
    """Go back to the state of the last validation, or to the beginning.

    Raises:
        TrainingDiverged: If this would be once more than ROLLBACKS.
    """
    if len(training.rollbacks) == ROLLBACKS:
        places = ", ".join(f"{one['step']} to {one['to']}" for one in training.rollbacks)
        raise TrainingDiverged(f"{error}. It went back {ROLLBACKS} times, from step {places}")
    if beginning is not None:
        state = checkpoints.State(0, beginning.to_tensors(), beginning.to_meta())
    else:
        state = checkpoints.load_step(directory, good)
    LOGGER.warning(
        "train: %s; the training goes back to step %d with half the learning rate", error, good
    )
    training.roll_back(state.step, state.tensors, state.meta, str(error))
    # They would lead to the same divergence again.
    if training.group.rank == 0:
        checkpoints.drop_newer(directory, state.step)


def _finish(
    training: Training, x_held_out: Tensor, condition_held_out: Tensor, conditions: Tensor
) -> dict[str, NDArray[Any]]:
    """Calibrate the best weights and match their flow: the tables that make them a model."""
    calibration = training.calibrate(x_held_out, condition_held_out)
    score, process = training.average, training.process
    score.calibration = calibration
    spread = np.linspace(0, len(conditions) - 1, MATCHED).round().astype(int)
    noise = torch.Generator().manual_seed(training.config.seed)
    grid = process.power_grid(MATCHING_STEPS)
    matched = match(score, conditions[spread].to(condition_held_out.device), grid, noise)
    tables = {f"calibration/{name}": table for name, table in calibration.state_dict().items()}
    tables |= {"matching/nodes": matched.nodes, "matching/rates": matched.rates}
    return {name: table.cpu().numpy() for name, table in tables.items()}


def _stretches(
    config: RunConfig,
    x: Series,
    condition: FloatArray,
    rows: FloatArray,
    baseline: Baseline,
    normals: xr.Dataset,
) -> list[tuple[Batches, Baseline]]:
    """Batches of each stretch of the training period, and the linear part fitted without it.

    Its fields are about the climatology of the others, too, where these tell one.
    """
    size, seed = config.train.batch, config.run.seed
    stretches = []
    folds = left_out(x, rows, FOLDS)
    if not all(fold.about_others for fold in folds):
        LOGGER.info(
            "train: the climatology is not cross-fitted, as some quarter of the training period "
            "has a season that the other three lack"
        )
    for number, fold in enumerate(folds):
        fields, seasons = fold.departures(x, rows), condition[fold.stretch]
        batches = Batches(fields, seasons, seed=seed + number, batch=min(size, len(fields)))
        law = refit(normals, baseline.name, fold.moments)
        stretches.append((batches, law.to(baseline.variance.device)))
    return stretches


def _name_baseline(config: RunConfig, directory: Any) -> dict[str, Any]:
    name = config.train.model.removeprefix("gaussian:")
    checkpoints.save(directory, 0, {"empty": np.zeros(0, np.float32)}, {"baseline": name})
    return {"figures": {"steps": 0, "model": config.train.model}}


def _told(training: Training) -> tuple[int, int, str]:
    """Progress in steps, with how many there will be at this speed."""
    total = max(training.step, round(training.step / max(training.progress, 1e-9)))
    words = f"loss {training.loss:.4f}"
    if training.history:
        last = training.history[-1]
        words += f", J_G {last['nats']:.0f} ± {last['error']:.0f} nats"
    return training.step, total, words


def training_series(layout: StoreLayout, period: Period) -> tuple[Series, FloatArray]:
    """Whitened fields of a period, (time, channel, coefficient), and their conditions.

    In memory if they take a quarter of it at most; else each batch is read when its turn comes.
    """
    whitened = artifacts.open_published(layout, "whitened").sel(time=within(period))
    x = whitened["x"]
    in_memory = x.nbytes <= machine_memory() * SERIES_SHARE
    return (x.values if in_memory else x), condition_of(whitened)


def climatology_terms(layout: StoreLayout, period: Period, normals: xr.Dataset) -> FloatArray:
    """The terms of the climatology at the times of a period, (time, term)."""
    whitened = artifacts.open_published(layout, "whitened").sel(time=within(period))
    return Normals.of(normals).rows(whitened)
