"""Stage 3: the score is learned from the training split and certified on the others.

Reads `whitened` and `normals`; publishes `checkpoints`:

    checkpoints/step-.../   tensors.safetensors (model, average, best, optimizer, calibration)
                            meta.json (loss, history, precision)
    attrs: figures (steps, J_G on validation [nats]), history of the training

A training that was stopped goes on from its newest state. With a Gaussian model there is nothing
to learn; the state then only names the baseline.
"""

import time as clock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from dask.system import CPU_COUNT

from flows.config import Period, RunConfig
from flows.model import (
    device_of,
    sampler_of,
    trained,
    untrained,
)
from flows.normals import baseline_of
from flows.stage import Progress, Receipt, published_input
from pipeline.certificate import block_interval, certify
from pipeline.coefficients import degrees
from pipeline.gaussian import Baseline, cross_fitted
from pipeline.model import native_precision
from pipeline.process import OrnsteinUhlenbeck
from pipeline.train import Training, TrainingConfig
from storage import artifacts, checkpoints
from storage.batches import Batches
from storage.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "train"
SCHEMA = 1
KIND = "checkpoints"

SECONDS_BETWEEN_STATES = 60.0
FOLDS = 4  # stretches of the training period, each trained on with the law of the others
CORRELATED_DAYS = 15.0  # that the bootstrap of the certificate keeps together


def key(config: RunConfig, layout: StoreLayout) -> str:
    read = ("model", "minutes", "steps", "batch", "learning_rate", "width")
    known = config.to_dict()["train"]
    return artifacts.content_key(
        stage=STAGE,
        schema=SCHEMA,
        config=config.subset(
            "run.seed",
            "split.train",
            "split.validation",
            "spectral.baseline",
            "generate.steps",  # validation is over the sampler's steps
            *(f"train.{name}" for name in read if name in known),
        ),
        inputs={kind: published_input(layout, kind).digest for kind in ("normals", "whitened")},
        code=artifacts.code_digest([__name__, "flows.model", "flows.normals"]),
    )


def run(
    config: RunConfig, layout: StoreLayout, client: "Client | None", progress: Progress
) -> Receipt:
    """Train, or go on training, and publish the last state with the best weights in it."""
    began = clock.monotonic()
    content = key(config, layout)
    directory = layout.artifact(KIND, content)
    normals = artifacts.open_published(layout, "normals").load()
    if config.train.model == "network":
        attrs = _train_network(config, layout, directory, normals, progress)
    else:
        attrs = _name_baseline(config, directory)
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


def certificate(config: RunConfig, layout: StoreLayout) -> dict[str, Any]:
    """J_G of the published model on the test split, over each baseline.

    Over the model's own baseline it is the estimate of pipeline.certificate; over another one the
    exact log-likelihood ratio of the two Gaussian laws on the same fields is added.

    Returns:
        {"over": {baseline: {"nats", "low", "high"}}, "per_degree", "per_variable", "per_time",
        "fields", "block", "baseline"}; the splits are over the model's own baseline.
    """
    normals = artifacts.open_published(layout, "normals").load()
    score = trained(config, published_input(layout, KIND), normals)
    device = device_of(config)
    x_0, condition = _split(layout, config.split.test)
    # The season advances by 2 pi a year; the median step is not fooled by gaps or the year's end.
    phase = condition[:, 0].numpy()
    days = 365.25 * float(np.median(np.diff(phase) % (2 * np.pi))) / (2 * np.pi)
    block = max(1, round(CORRELATED_DAYS / max(days, 1e-3)))
    x_0, condition = x_0.to(device), condition.to(device)
    times = sampler_of(config).times
    result = certify(score, x_0, condition, times, torch.Generator().manual_seed(config.run.seed))
    generator = np.random.default_rng(config.run.seed)
    own = score.baseline.log_density(x_0)
    over = {}
    for name in ("isotropic", "m-block"):
        other = baseline_of(normals, name).to(device).log_density(x_0)
        nats = result.per_field + (own - other).cpu().numpy()
        low, high = block_interval(nats, block, generator)
        over[name] = {"nats": float(nats.mean()), "low": low, "high": high}
    degree = degrees(int(normals.attrs["lmax"]))
    per_degree = np.bincount(degree, weights=result.per_coefficient.sum(axis=0))
    channels = [str(name) for name in normals["channel"].values]
    return {
        "over": over,
        "baseline": score.baseline.name,
        "fields": len(x_0),
        "block": block,
        "per_degree": per_degree.tolist(),
        "per_variable": dict(
            zip(channels, result.per_coefficient.sum(axis=1).tolist(), strict=True)
        ),
        "per_time": result.per_time.tolist(),
        "times": times.tolist(),
    }


def _train_network(
    config: RunConfig, layout: StoreLayout, directory: Any, normals: xr.Dataset, progress: Progress
) -> dict[str, Any]:
    torch.set_num_threads(CPU_COUNT)
    device, state = device_of(config), checkpoints.load_latest(directory)
    precision = str(native_precision(device)).removeprefix("torch.")
    if state is not None:
        precision = state.meta["precision"]
    training = Training(
        model=untrained(config, normals, getattr(torch, precision)).to(device),
        config=TrainingConfig(
            steps=config.train.steps,
            minutes=config.train.minutes,
            learning_rate=config.train.learning_rate,
            seed=config.run.seed,
        ),
        process=OrnsteinUhlenbeck(),
        times=sampler_of(config).times,
    )
    if state is not None:
        training.restore(state.step, state.tensors, state.meta)
        training.seconds = float(state.meta.get("seconds", 60 * (config.train.minutes or 0)))

    stretches = _stretches(config, layout, training.model.baseline, normals)
    x_held_out, condition_held_out = _split(layout, config.split.validation)
    saved = clock.monotonic()
    while training.progress < 1:
        turn, number = divmod(training.step, len(stretches))
        batches, baseline = stretches[number]
        x, condition = (torch.from_numpy(part).to(device) for part in batches.batch_at(turn))
        training.advance(x, condition, baseline)
        if training.validation_due:
            training.validate(x_held_out.to(device), condition_held_out.to(device))
        if training.progress < 1 and clock.monotonic() - saved > SECONDS_BETWEEN_STATES:
            running = {**training.to_meta(), "precision": precision, "seconds": training.seconds}
            checkpoints.save(directory, training.step, training.to_tensors(), running)
            saved = clock.monotonic()
        progress(*_told(training))
    # The finished state does not tell how long it took: equal trainings have equal digests.
    finished = {**training.to_meta(), "precision": precision}
    calibration = training.calibrate(x_held_out.to(device), condition_held_out.to(device))
    tables = {
        f"calibration/{name}": table.cpu().numpy()
        for name, table in calibration.state_dict().items()
    }
    checkpoints.save(directory, training.step, training.to_tensors() | tables, finished)
    best = max(training.history, key=lambda entry: entry["nats"])
    return {
        "figures": {
            "steps": training.step,
            "parameters": sum(p.numel() for p in training.model.parameters()),
            "J_G validation": f"{best['nats']:.1f} ± {best['error']:.1f}",
        },
        "history": training.history,
        "seconds": training.seconds,
    }


def _stretches(
    config: RunConfig, layout: StoreLayout, baseline: Baseline, normals: xr.Dataset
) -> list[tuple[Batches, Baseline]]:
    """Batches of each stretch of the training period, and the linear part fitted without it."""
    x, condition = (part.numpy() for part in _split(layout, config.split.train))
    stretches: list[tuple[slice, Baseline]] = [(slice(None), baseline)]
    if baseline.name == "m-block":
        stretches = [*cross_fitted(x, normals["mblock_shrinkage"].values, FOLDS)]
    size, seed = config.train.batch, config.run.seed
    return [
        (
            Batches(x[part], condition[part], seed=seed + number, batch=min(size, len(x[part]))),
            law.to(baseline.variance.device),
        )
        for number, (part, law) in enumerate(stretches)
    ]


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


def _split(layout: StoreLayout, period: Period) -> tuple[torch.Tensor, torch.Tensor]:
    """Whitened fields of a period, (time, channel, coefficient), and their condition."""
    whitened = artifacts.open_published(layout, "whitened").sel(time=slice(*period))
    x = np.ascontiguousarray(whitened["x"].values, dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(np.array(whitened["phase"].values, np.float64))[
        :, None
    ]
