"""From the artifacts of a run to its score, untrained and trained, and to its sampler."""

from functools import partial

import numpy as np
import torch
import xarray as xr

from flows.config import RunConfig
from flows.normals import baseline_of
from pipeline.calibration import Calibration
from pipeline.model import score_network
from pipeline.process import OrnsteinUhlenbeck
from pipeline.sample import INTEGRATORS, Sampler
from pipeline.score import GaussianScore, Score, ScoreNet
from pipeline.train import load
from storage import artifacts, checkpoints


def untrained(config: RunConfig, normals: xr.Dataset, precision: torch.dtype) -> ScoreNet:
    """The score network before its first step, on the CPU."""
    return score_network(
        baseline=baseline_of(normals, config.spectral.baseline),
        factor=normals["reference_factor"].values,
        static=normals["static"].values,
        width=config.train.width,
        blocks=config.train.blocks,
        dropout=config.train.dropout,
        covariates=len(config.source.covariates),
        precision=precision,
        seed=config.run.seed,
    )


def trained(config: RunConfig, checkpoint: artifacts.Published, normals: xr.Dataset) -> Score:
    """The score that a published checkpoint holds, on the configured device."""
    device = device_of(config)
    if config.train.model != "network":
        name = config.train.model.removeprefix("gaussian:")
        return GaussianScore(baseline_of(normals, name).to(device))
    state = checkpoints.load_latest(checkpoint.path)
    if state is None:
        raise artifacts.CorruptArtifact(
            f"{checkpoint.path} holds no state that verifies; move it away and train again"
        )
    model = untrained(config, normals, getattr(torch, state.meta["precision"]))
    best, tables = (
        {
            name.removeprefix(part): torch.from_numpy(np.array(array))
            for name, array in state.tensors.items()
            if name.startswith(part)
        }
        for part in ("best/", "calibration/")
    )
    load(model, best)
    model.calibration = Calibration(model.baseline, 1e-3, 1.0)  # the tables tell the times
    model.calibration.load_state_dict(tables)
    return model.eval().requires_grad_(False).to(device)


def sampler_of(config: RunConfig) -> Sampler:
    """The sampler that the configuration asks for."""
    return Sampler(
        integrator=INTEGRATORS[config.generate.integrator],
        evaluations=config.generate.evaluations,
        grid=partial(OrnsteinUhlenbeck().power_grid, exponent=config.generate.grid_exponent),
    )


def certified_sampler(config: RunConfig) -> Sampler:
    """The GME sampler that J_G is about: the configured one, or the default for other integrators.

    J_G bounds the law of one-step Gaussian samplers alone.
    """
    return sampler_of(config) if config.generate.integrator == "gme" else Sampler(evaluations=64)


def device_of(config: RunConfig) -> torch.device:
    """The configured device; "auto" takes a GPU where there is one."""
    wanted = config.train.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
