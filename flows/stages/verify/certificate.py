"""What the report says about the law itself: certificate, likelihood and terms of the bounds.

The baselines were fitted to the training split; weights, shrinkage and calibration were chosen on
the validation split; everything here is measured on the test split, which none of them has seen.

    statement    what J_G says, in words
    over         by Gaussian baseline: {nats, low, high, standard_error, block, per_coefficient},
                 J_G and its 95 % interval from blocks of so many times (pipeline/scores/intervals)
    baseline     the model's own, over which all splits are
    chain        integrator (gme), steps; drawn_with: the integrator of the ensemble
    fields, draws, block (over the model's own baseline), coefficients
    members      how many are the independent witnesses; 0 where blocks of times are
    per_field    {times, over {baseline: [...]}}: what each held-out field says
    per_degree, per_degree_error, per_variable, per_variable_error (by name), per_time, times
    spectrum     (part of the chain, channel, degree), five digits: the three splits together, from
                 each of the times to the next
    best         {name, choice}: the best Gaussian law that was fitted, one of those in `over`, and
                 what the validation split chose of it, or why there is none but the baselines
    likelihood   {over {baseline: {nats, error}}, fields, trace_error}: gain in log-likelihood
                 of the law of the probability flow
    bounds       {start, step}: start term, rigorous but for its second moments, which are those of
                 the test split; step term, by the model's residual

Over the model's own baseline J_G is the estimate of pipeline.certificate.path_bound; over another
one the exact log-likelihood ratio of the two Gaussian laws on the same fields is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.base import published_input
from flows.stages.preprocess.block_sums import opened
from flows.stages.preprocess.normals import STORED_AS, baseline_of
from flows.stages.splits import part_of, witnesses
from flows.stages.trained_model import (
    Trained,
    baseline_name,
    certified_sampler,
    device_of,
    loaded,
    tensors_of,
)
from flows.stages.verify.best_gaussian import WHOLE, BestGaussian, best_gaussian
from pipeline.arrays import FloatArray
from pipeline.certificate.bounds import model_step_term, start_bound
from pipeline.certificate.likelihood import log_likelihood_gain
from pipeline.certificate.path_bound import Certificate, certify
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import residual_energy
from pipeline.diffusion.score import Score
from pipeline.scores.intervals import Interval, of_times, standard_errors
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

FITTED = "averaged"  # the best of the laws that scores are built on
EVALUATIONS = 2000  # of the network for J_G, but one for each field; half a minute at lmax 31
FIELDS = 8  # for the likelihood, spread over the test period; every `APART`-th for the step term
APART = 4
SHOWN = 64  # parts of the chain, in which its steps are told together
FLOW_STEPS, SHORTEST_TIME = 8, 1e-3  # of the probability flow
TOGETHER = 16  # fields that one task certifies


@dataclass(frozen=True)
class Part:
    """A run of the test period that one task certifies.

    Attributes:
        of: fields of the test period.
        draws: of the steps of the chain, for each field.
        few: those of its fields, counted from `start`, that the likelihood is about.
        fewer: those of them that the step term is about.
    """

    start: int
    stop: int
    of: int
    draws: int
    few: tuple[int, ...]
    fewer: tuple[int, ...]

    def __str__(self) -> str:
        return f"of fields {self.start} to {self.stop}"


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What the fields of a part say.

    Attributes:
        nats: their contributions to J_G.
        own: log of the density of the model's baseline, (field,).
        ratios: log of the density of the model's baseline over each baseline's, (field,), by name.
        start: sum over the fields of the start terms of the bound.
        gains: in log-likelihood of each of the few, (probe,).
        steps: the step terms of the fewer.
    """

    nats: Certificate
    own: FloatArray
    ratios: dict[str, FloatArray]
    start: float
    gains: list[FloatArray]
    steps: list[float]


def certificate(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> dict[str, Any]:
    """J_G of the published model over every fitted baseline, and what stands beside it.

    It is measured where fields are drawn: on the workers, those with a GPU if some have one. The
    numbers do not depend on how many there are.
    """
    checkpoint, normals, whitened = (
        published_input(layout, kind) for kind in ("checkpoints", "normals", "whitened")
    )
    held_out = part_of(artifacts.open_artifact(whitened), config.split, "test")
    parts = _parts(held_out.sizes["time"], len(certified_sampler(config).times) - 1)
    measure = partial(certified, config, checkpoint, normals, whitened)
    found = map_units(client, measure, parts, progress, label="certificate", resource="GPU")
    fitted = partial(best_gaussian, config, whitened)
    (best,) = map_units(client, fitted, [WHOLE], progress, label="the best Gaussian law")
    return _assembled(config, held_out, parts, found, best)


def certified(
    config: RunConfig,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    whitened: artifacts.Published,
    part: Part,
) -> Certified:
    """What a part of the test period says of the model. Runs on a worker."""
    torch.set_num_threads(1)
    model, constants = loaded(config, checkpoint, normals)
    held_out = part_of(opened(whitened), config.split, "test")
    device, times = device_of(config), certified_sampler(config).times
    x_0, condition = (
        each.to(device) for each in tensors_of(held_out.isel(time=slice(part.start, part.stop)))
    )
    baseline = model.score.baseline
    moment = baseline.rotate(x_0.double()).square().mean(dim=0)
    # The same in all parts: each field has its own streams, numbered from these.
    noise = torch.Generator().manual_seed(config.run.seed)
    together = config.generate.microbatch
    nats = certify(
        model.score,
        x_0,
        condition,
        times,
        noise,
        part.draws,
        batch=together,
        first=part.start,
        of=part.of,
    )
    seed = int(torch.randint(2**48, (), generator=noise)) + part.start
    alone = {
        row: (x_0[[row]], condition[[row]], torch.Generator().manual_seed(seed + row))
        for row in part.few
    }
    return Certified(
        nats=nats,
        own=baseline.log_density(x_0).cpu().numpy(),
        ratios=_gaussian_ratios(model.score, constants, x_0),
        start=len(x_0) * start_bound(moment, baseline.variance, float(times[0])),
        gains=[_gain(model, *each) for each in alone.values()],
        steps=[_step_term(model, *alone[row], times) for row in part.fewer],
    )


def _parts(fields: int, steps: int) -> list[Part]:
    draws = min(max(1, EVALUATIONS // fields), steps)
    few = np.linspace(0, fields - 1, min(FIELDS, fields)).round().astype(int).tolist()
    starts = range(0, fields, TOGETHER)

    def within_part(chosen: list[int], start: int, stop: int) -> tuple[int, ...]:
        return tuple(k - start for k in chosen if start <= k < stop)

    return [
        Part(
            start, stop, fields, draws, *(within_part(k, start, stop) for k in (few, few[::APART]))
        )
        for start, stop in zip(starts, [*starts[1:], fields], strict=True)
    ]


def _assembled(
    config: RunConfig,
    held_out: xr.Dataset,
    parts: Sequence[Part],
    found: Sequence[Certified],
    best: BestGaussian,
) -> dict[str, Any]:
    """What the parts say together: see the module."""
    channels = [str(name) for name in held_out["channel"].values]
    result = sum((each.nats for each in found[1:]), start=found[0].nats)
    ratios = {name: np.concatenate([each.ratios[name] for each in found]) for name in STORED_AS}
    if best.log_density is not None:
        ratios[WHOLE] = np.concatenate([each.own for each in found]) - best.log_density
    among, season = witnesses(held_out, config.split), held_out["phase"].values
    fields, size = len(result.by_field), held_out["x"][0].size
    per_field = {name: result.per_field + ratio for name, ratio in ratios.items()}
    found_over = {name: among.interval(nats, season) for name, nats in per_field.items()}
    block = found_over[baseline_name(config)].block
    errors = [
        standard_errors(of_times(result.by_field_alone.sum(axis), among.of), block)
        for axis in (1, 2)
    ]
    chosen = [part.start + k for part in parts for k in part.few]
    steps = len(result.by_step)
    first = np.arange(0, steps, -(-steps // SHOWN))  # step of each part of the chain
    times = np.append(certified_sampler(config).times[first], 0.0)
    spectrum = np.add.reduceat(result.spectrum, first, axis=0)
    summary: dict[str, Any] = {
        "over": {name: _entry(each, size) for name, each in found_over.items()},
        "baseline": baseline_name(config),
        "best": {"name": WHOLE if WHOLE in ratios else FITTED, "choice": best.choice},
        "chain": {
            "integrator": "gme",
            "steps": steps,
            "drawn_with": config.generate.integrator,
        },
        "fields": fields,
        "draws": result.visits.shape[1],
        "block": block,
        "members": len(np.unique(among.of)) if among.exchangeable else 0,
        "coefficients": size,
        "per_field": {
            "times": [str(day)[:19] for day in held_out["time"].values],
            "over": {name: _rounded(nats.tolist()) for name, nats in per_field.items()},
        },
        "per_degree": spectrum.sum(axis=(0, 1)).tolist(),
        "per_degree_error": errors[0].tolist(),
        "per_variable": _named(channels, spectrum.sum(axis=(0, 2))),
        "per_variable_error": _named(channels, errors[1]),
        "per_time": spectrum.sum(axis=(1, 2)).tolist(),
        "times": times.tolist(),
        "spectrum": _rounded(spectrum.tolist()),
        "likelihood": _likelihood(
            np.stack([gain for each in found for gain in each.gains], axis=1),
            {name: ratio[chosen] for name, ratio in ratios.items()},
        ),
        "bounds": {
            "start": sum(each.start for each in found) / fields,
            "step": float(np.mean([step for each in found for step in each.steps])),
        },
    }
    return {"statement": statement(summary), **summary}


def statement(found: dict[str, Any]) -> str:
    """What may be said of J_G, and of which sampler."""
    own = found["over"][found["baseline"]]
    chain = found["chain"]
    value = f"{own['nats']:.1f} nats, {own['per_coefficient']:.2g} for each coefficient"
    if own["low"] > 0:
        words = (
            f"On {found['fields']} held-out fields, with 95 % confidence, the "
            f"Kullback-Leibler divergence of the data from the law of the GME chain of "
            f"{chain['steps']} steps is smaller than that from the fitted {found['baseline']} "
            f"Gaussian law by at least {own['low']:.1f} nats (estimate {value})."
        )
    else:
        words = (
            f"On {found['fields']} held-out fields no improvement of the GME chain of "
            f"{chain['steps']} steps over the fitted {found['baseline']} Gaussian law is certified "
            f"(estimate {value})."
        )
    best = found["best"]["name"]
    if best != found["baseline"]:
        over = found["over"][best]
        words += (
            f" Over the best Gaussian law we know how to fit ({best}) it is {over['nats']:.1f} "
            f"nats, 95 %: {over['low']:.1f} to {over['high']:.1f}."
        )
    words += (
        " The divergence itself stays unknown. Baselines were fitted to the training split, "
        "weights and calibration chosen on the validation split; this is measured on the test "
        "split."
    )
    if chain["drawn_with"] != "gme":
        words += (
            f" The ensemble was drawn with {chain['drawn_with']}, which the number does not cover."
        )
    return words


def _entry(found: Interval, size: int) -> dict[str, float]:
    return {
        "nats": found.value,
        "low": found.low,
        "high": found.high,
        "standard_error": found.standard_error,
        "block": found.block,
        "per_coefficient": found.value / size,
    }


def _gaussian_ratios(score: Score, normals: xr.Dataset, x_0: torch.Tensor) -> dict[str, FloatArray]:
    """log of the density of the model's baseline over that of each baseline, by field."""
    own = score.baseline.log_density(x_0)
    return {
        name: (own - baseline_of(normals, name).to(x_0.device).log_density(x_0)).cpu().numpy()
        for name in STORED_AS
    }


def _gain(
    model: Trained, x_0: torch.Tensor, condition: torch.Tensor, noise: torch.Generator
) -> FloatArray:
    """The gain in log-likelihood of one field, (probe,)."""
    flow_times = OrnsteinUhlenbeck().power_grid(FLOW_STEPS, exponent=3.0)
    flow_times[-1] = SHORTEST_TIME
    gain: FloatArray = (
        log_likelihood_gain(model.flow, x_0, condition, flow_times, noise)[:, 0].cpu().numpy()
    )
    return gain


def _step_term(
    model: Trained,
    x_0: torch.Tensor,
    condition: torch.Tensor,
    noise: torch.Generator,
    times: FloatArray,
) -> float:
    """The step term of one field."""
    energy = residual_energy(model.score, x_0, condition, times[:-1], noise)
    terms = model_step_term(energy, model.score.baseline.variance, times)
    return float(terms.sum())


def _likelihood(by_probe: FloatArray, ratios: dict[str, FloatArray]) -> dict[str, Any]:
    gain, probes = by_probe.mean(axis=0), len(by_probe)
    over = {}
    for name, ratio in ratios.items():
        nats = gain + ratio
        error = float(nats.std(ddof=1)) / len(nats) ** 0.5
        over[name] = {"nats": float(nats.mean()), "error": error}
    scatter = float(by_probe.var(axis=0, ddof=1).mean() / probes / len(gain)) ** 0.5
    return {"over": over, "fields": len(gain), "trace_error": scatter}


def _named(channels: Sequence[str], values: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip(channels, values.tolist(), strict=True))


def _rounded(table: Any) -> Any:
    if isinstance(table, list):
        return [_rounded(each) for each in table]
    return float(f"{table:.5g}")
