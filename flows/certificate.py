"""What the report says about the law itself: certificate, likelihood and terms of the bounds.

The baselines were fitted to the training split; weights, shrinkage and calibration were chosen on
the validation split; everything here is measured on the test split, which none of them has seen.

    statement    what J_G says, in words
    over         by Gaussian baseline: {nats, low, high, per_coefficient}, J_G and its 95 % interval
    baseline     the model's own, over which all splits are
    chain        integrator (gme), steps; drawn_with: the integrator of the ensemble
    fields, draws, block, coefficients
    per_degree, per_degree_error, per_variable, per_variable_error (by name), per_time, times
    spectrum     (step, channel, degree), five digits: the three splits together
    likelihood   {over {baseline: {nats, error}}, fields, trace_error}: gain in log-likelihood
                 of the law of the probability flow
    bounds       {start, step}: start term, rigorous but for its second moments, which are those of
                 the test split; step term, by the model's residual

Over the model's own baseline J_G is the estimate of pipeline.certificate; over another one the
exact log-likelihood ratio of the two Gaussian laws on the same fields is added.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr

from flows.config import RunConfig
from flows.model import certified_sampler, device_of, trained
from flows.normals import STORED_AS, baseline_of
from flows.stage import published_input
from flows.train import split_fields
from pipeline.bounds import model_step_term, start_bound
from pipeline.certificate import FloatArray, block_error, block_interval, certify
from pipeline.likelihood import log_likelihood_gain
from pipeline.process import OrnsteinUhlenbeck
from pipeline.sample import residual_energy
from pipeline.score import Score
from storage import artifacts
from storage.layout import StoreLayout

EVALUATIONS = 2000  # of the network for J_G, but one for each field; half a minute at lmax 31
CORRELATED_DAYS = 15.0  # that the bootstrap keeps together
FIELDS = 8  # for the likelihood and the step term, spread over the test period
FLOW_STEPS, SHORTEST_TIME = 8, 1e-3  # of the probability flow


def certificate(config: RunConfig, layout: StoreLayout) -> dict[str, Any]:
    """J_G of the published model over every fitted baseline, and what stands beside it."""
    normals = artifacts.open_published(layout, "normals").load()
    model = trained(config, published_input(layout, "checkpoints"), normals)
    score = model.score
    x_0, condition = split_fields(layout, config.split.test)
    block = _block(condition[:, 0].numpy())
    device = device_of(config)
    x_0, condition = x_0.to(device), condition.to(device)
    times = certified_sampler(config).times
    draws = min(max(1, EVALUATIONS // len(x_0)), len(times) - 1)
    noise = torch.Generator().manual_seed(config.run.seed)
    result = certify(score, x_0, condition, times, noise, draws)

    random = np.random.default_rng(config.run.seed)
    ratios = _gaussian_ratios(score, normals, x_0)
    over: dict[str, dict[str, float]] = {}
    for name, ratio in ratios.items():
        nats = result.per_field + ratio
        low, high = block_interval(nats, block, random)
        mean = float(nats.mean())
        size = x_0[0].numel()
        over[name] = {"nats": mean, "low": low, "high": high, "per_coefficient": mean / size}

    channels = [str(name) for name in normals["channel"].values]
    errors = [block_error(result.by_field.sum(axis), block, random) for axis in (1, 2)]
    chosen = np.linspace(0, len(x_0) - 1, min(FIELDS, len(x_0))).round().astype(int)
    few = x_0[chosen], condition[chosen]
    found: dict[str, Any] = {
        "over": over,
        "baseline": score.baseline.name,
        "chain": {
            "integrator": "gme",
            "steps": len(times) - 1,
            "drawn_with": config.generate.integrator,
        },
        "fields": len(x_0),
        "draws": draws,
        "block": block,
        "coefficients": x_0[0].numel(),
        "per_degree": result.spectrum.sum(axis=(0, 1)).tolist(),
        "per_degree_error": errors[0].tolist(),
        "per_variable": _named(channels, result.spectrum.sum(axis=(0, 2))),
        "per_variable_error": _named(channels, errors[1]),
        "per_time": result.spectrum.sum(axis=(1, 2)).tolist(),
        "times": times.tolist(),
        "spectrum": _rounded(result.spectrum.tolist()),
        "likelihood": _likelihood(
            model.flow, *few, {n: r[chosen] for n, r in ratios.items()}, noise
        ),
        "bounds": _bounds(score, x_0, *few, times, noise),
    }
    return {"statement": statement(found), **found}


def statement(found: dict[str, Any]) -> str:
    """What may be said of J_G, and of which sampler."""
    own = found["over"][found["baseline"]]
    chain = found["chain"]
    value = f"{own['nats']:.1f} nats, {own['per_coefficient']:.2g} for each coefficient"
    if own["low"] > 0:
        words = (
            f"On {found['fields']} held-out fields, with 95 % Monte-Carlo confidence, the "
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


def _block(phase: FloatArray) -> int:
    """Fields that the bootstrap keeps together."""
    # The season advances by 2 pi a year; the median step is not fooled by gaps or the year's end.
    days = 365.25 * float(np.median(np.diff(phase) % (2 * np.pi))) / (2 * np.pi)
    return max(1, round(CORRELATED_DAYS / max(days, 1e-3)))


def _gaussian_ratios(score: Score, normals: xr.Dataset, x_0: torch.Tensor) -> dict[str, FloatArray]:
    """log of the density of the model's baseline over that of each baseline, by field."""
    own = score.baseline.log_density(x_0)
    return {
        name: (own - baseline_of(normals, name).to(x_0.device).log_density(x_0)).cpu().numpy()
        for name in STORED_AS
    }


def _likelihood(
    score: Score,
    x_0: torch.Tensor,
    condition: torch.Tensor,
    ratios: dict[str, FloatArray],
    noise: torch.Generator,
) -> dict[str, Any]:
    times = OrnsteinUhlenbeck().power_grid(FLOW_STEPS, exponent=3.0)
    times[-1] = SHORTEST_TIME
    by_probe = log_likelihood_gain(score, x_0, condition, times, noise).cpu().numpy()
    gain, probes = by_probe.mean(axis=0), len(by_probe)
    over = {}
    for name, ratio in ratios.items():
        nats = gain + ratio
        error = float(nats.std(ddof=1)) / len(nats) ** 0.5
        over[name] = {"nats": float(nats.mean()), "error": error}
    scatter = float(by_probe.var(axis=0, ddof=1).mean() / probes / len(gain)) ** 0.5
    return {"over": over, "fields": len(gain), "trace_error": scatter}


def _bounds(
    score: Score,
    x_0: torch.Tensor,
    few: torch.Tensor,
    condition: torch.Tensor,
    times: FloatArray,
    noise: torch.Generator,
) -> dict[str, float]:
    baseline = score.baseline
    moment = torch.zeros_like(baseline.variance)
    for part in x_0.split(64):
        moment += baseline.rotate(part.double()).square().sum(dim=0) / len(x_0)
    energy = residual_energy(score, few, condition, times[:-1], noise)
    return {
        "start": start_bound(moment, baseline.variance, float(times[0])),
        "step": float(model_step_term(energy, baseline.variance, times).sum()),
    }


def _named(channels: list[str], values: FloatArray) -> dict[str, float]:
    return dict(zip(channels, values.tolist(), strict=True))


def _rounded(table: Any) -> Any:
    if isinstance(table, list):
        return [_rounded(each) for each in table]
    return float(f"{table:.5g}")
