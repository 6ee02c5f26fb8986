"""The score of a run, untrained and trained, and its sampler, made of its artifacts."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from flows.config.schema import VAR, RunConfig
from flows.stages.conditions import condition_of
from flows.stages.kept import Kept
from flows.stages.preprocess.normals import baseline_of
from flows.stages.preprocess.sequence_law import sequence_law_of
from pipeline.arrays import FloatArray
from pipeline.diffusion.matching import MatchedScore
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.diffusion.score import Condition, GaussianScore, Given, Score
from pipeline.diffusion.sequences import NextDay
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.network.calibration import Calibration
from pipeline.network.score_network import ScoreNet, score_network
from pipeline.network.train import load
from storage.artifacts import publishing as artifacts
from storage.training import checkpoints


def untrained(config: RunConfig, normals: xr.Dataset, precision: torch.dtype) -> ScoreNet:
    """The score network before its first step, on the CPU."""
    return score_network(
        baseline=_learned_from(config, normals),
        factor=normals["reference_factor"].values,
        static=normals["static"].values,
        width=config.train.width,
        blocks=config.train.blocks,
        dropout=config.train.dropout,
        covariates=len(config.source.covariate_names),
        past=config.sequence.past if config.learns_sequences else 0,
        precision=precision,
        power=np.einsum("ccl->cl", normals["data_spectrum"].values),
        seed=config.run.seed,
    )


# What steps cost falls like one over their number; J_G of many is not dearer to estimate.
CERTIFIED = Sampler(evaluations=256)


def _learned_from(config: RunConfig, normals: xr.Dataset) -> Baseline:
    """The Gaussian law that the network starts from: of single days, or of what is new in a day."""
    if config.learns_sequences:
        return sequence_law_of(normals).innovations[config.sequence.past]
    return baseline_of(normals, config.spectral.baseline)


@dataclass(frozen=True)
class Trained:
    """What a published checkpoint holds, on the configured device.

    Attributes:
        score: the calibrated score, which is certified.
        flow: the same with the rates that its probability flow lacks.
        factor: of days of sequences that the flow draws, (channel, degree), if it draws some.
    """

    score: Score
    flow: Score
    factor: FloatArray | None = None

    def drawn_by(self, sampler: Sampler) -> Score:
        """The one that this sampler integrates."""
        return self.score if sampler.integrator.stochastic else self.flow

    def following(self, law: SequenceLaw, sampler: Sampler) -> NextDay:
        """The law of a day given those before it, as this sampler draws it."""
        factor = None if sampler.integrator.stochastic else self.factor
        return NextDay(law=law, score=self.drawn_by(sampler), sampler=sampler, factor=factor)


def trained(config: RunConfig, checkpoint: artifacts.Published, normals: xr.Dataset) -> Trained:
    """The model of single days of a published checkpoint.

    A network that was trained on sequences knows none: they are drawn from the Gaussian law.
    """
    if config.draws_by_network:
        return _restored(config, checkpoint, normals)
    gaussian = GaussianScore(baseline_of(normals, baseline_name(config)).to(device_of(config)))
    return Trained(gaussian, gaussian)


def trained_sequences(
    config: RunConfig, checkpoint: artifacts.Published, normals: xr.Dataset
) -> Trained | None:
    """The learned law of what is new in a day given those before it; None if it is Gaussian."""
    if config.learns_sequences:
        return _restored(config, checkpoint, normals)
    return None


def _restored(config: RunConfig, checkpoint: artifacts.Published, normals: xr.Dataset) -> Trained:
    device = device_of(config)
    state = checkpoints.load_latest(checkpoint.path)
    if state is None:
        raise artifacts.CorruptArtifact(
            f"{checkpoint.path} holds no state that verifies; move it away and train again"
        )
    model = untrained(config, normals, getattr(torch, state.meta["precision"]))
    best, tables, matching, holding = (
        {
            name.removeprefix(part): torch.from_numpy(np.array(array))
            for name, array in state.tensors.items()
            if name.startswith(part)
        }
        for part in ("best/", "calibration/", "matching/", "holding/")
    )
    load(model, best)
    model.calibration = Calibration(model.baseline, 1e-3, 1.0)  # the tables tell the times
    model.calibration.load_state_dict(tables)
    score = model.eval().requires_grad_(False).to(device)
    factor = holding["factor"].numpy() if holding else None
    return Trained(score, MatchedScore(score, **matching), factor)


@lru_cache(maxsize=1)
def loaded_normals(normals: artifacts.Published) -> xr.Dataset:
    """Published normals, read once in a process."""
    return artifacts.open_artifact(normals).load()


@lru_cache(maxsize=1)
def loaded_sequence_law(normals: artifacts.Published) -> SequenceLaw:
    """The linear law of sequences in published normals, made once in a process."""
    return sequence_law_of(loaded_normals(normals))


_DAYS, _SEQUENCES = Kept[Trained](), Kept[Trained | None]()


def loaded(
    config: RunConfig, checkpoint: artifacts.Published, normals: artifacts.Published
) -> tuple[Trained, xr.Dataset]:
    """The model of a published checkpoint and its normals, kept for the next unit."""
    constants, place = loaded_normals(normals), (checkpoint.digest, normals.digest)
    return _DAYS(place, lambda: trained(config, checkpoint, constants)), constants


def loaded_sequences(
    config: RunConfig, checkpoint: artifacts.Published, normals: artifacts.Published
) -> Trained | None:
    """`trained_sequences` of a published checkpoint, kept for the next unit."""
    constants, place = loaded_normals(normals), (checkpoint.digest, normals.digest)
    return _SEQUENCES(place, lambda: trained_sequences(config, checkpoint, constants))


def baseline_name(config: RunConfig) -> str:
    """The Gaussian law of single days that the model starts from, or that it is."""
    if config.draws_by_network:
        return config.spectral.baseline
    if config.train.model in ("network", VAR):  # which tells how days follow each other
        return "m-block"
    return config.train.model.removeprefix("gaussian:")


def tensors_of(whitened: xr.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """What a score takes: fields (time, channel, coefficient) in memory, and their condition."""
    x = np.ascontiguousarray(whitened["x"].values, dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(condition_of(whitened))


def taken(x: FloatArray, features: FloatArray, device: torch.device) -> tuple[Tensor, Given]:
    """What a score takes of a batch: fields and their condition.

    Args:
        x: fields (batch, channel, coefficient), or days with what they are given, (batch, 2 + past,
            channel, coefficient), as pipeline.gaussian.given_past.Innovations reads them.
    """
    fields, condition = torch.from_numpy(x).to(device), torch.from_numpy(features).to(device)
    if x.ndim == 3:
        return fields, condition
    return fields[:, 0], Condition(features=condition, past=fields[:, 1:])


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
    return sampler_of(config) if config.generate.integrator == "gme" else CERTIFIED


def device_of(config: RunConfig) -> torch.device:
    """The configured device; "auto" takes a GPU where there is one."""
    wanted = config.train.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
