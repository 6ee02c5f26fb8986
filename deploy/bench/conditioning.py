"""Fields given what is known, on held-out days: how good what was not observed is, beside kriging.

    python -m deploy.bench.conditioning RUN.toml [--days 12] [--draws 32] [--evaluations 16] \\
        [--particles 32] [--only stations]

The run must have been trained. Days are spread over the validation split, which the laws have not
been fitted to; the test split is not looked at. Three things are given:

    stations   200 cells, chosen at random, of all variables, with an error of half a deviation
    holes      all cells but 30 % in blobs, with an error of a tenth of a deviation
    coarse     scalar variables without transform, up to degree 21 (or two thirds of lmax), exactly

Prints, for draws that know nothing, for those of the baseline given the same (kriging), and for
those of the network with and without weights: the fair CRPS at cells that were not observed, in
climatological deviations of transformed values, and its difference to kriging's with a 95 %
interval over days; the coverage of 90 % bands; the smallest effective sample size; seconds a draw.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch

from flows.config.schema import RunConfig, read_config, within
from flows.stages.base import published_input
from flows.stages.conditions import conditioned_as_observed
from flows.stages.preprocess.normals import baseline_of, tail_of
from flows.stages.trained_model import baseline_name, trained
from pipeline.arrays import FloatArray
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore
from pipeline.fields.pointwise.maps import Identity
from pipeline.fields.standardisation import Normals, transformed
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.posterior import GaussianPosterior
from pipeline.given.functionals import Functionals, cells, joined, low_degrees
from pipeline.given.seen import Seen, Summary
from pipeline.given.twisted import TwistedChain
from pipeline.scores.intervals import mean_interval
from pipeline.scores.proper_scores import fair_crps
from pipeline.sphere.harmonics import plan
from storage.artifacts import publishing as artifacts

STATIONS, STATION_ERROR, HOLE_ERROR, MISSING = 200, 0.5, 0.1, 0.3
BLOBS = 6  # degree of the noise whose upper part is missing
JUDGED = 4000  # values that were not observed, of a day


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A run, its held-out days and how much is drawn."""

    asked: argparse.Namespace
    config: RunConfig
    known: Normals
    tail: GaussianTail | None
    truth: FloatArray  # scaled anomalies (day, variable, *grid)
    rows: FloatArray  # terms of the climatology, (day, term)
    condition: torch.Tensor
    season: FloatArray
    laws: dict[str, object]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What is given on a day, and the cells that were not observed, flat over variables."""

    functionals: Functionals
    deviation: float
    hidden: np.ndarray


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("run")
    for name, value in (("days", 12), ("draws", 32), ("evaluations", 16), ("particles", 32)):
        asked.add_argument(f"--{name}", type=int, default=value)
    asked.add_argument("--only", default="")
    bench = opened(asked.parse_args())
    print("| given | law | fair CRPS | to kriging | 95 % | coverage of 90 % | smallest ESS | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, case in (("stations", stations), ("holes", holes), ("coarse", coarse)):
        if bench.asked.only in ("", name):
            tell(bench, name, [case(bench, day) for day in range(len(bench.truth))])


def opened(asked: argparse.Namespace) -> Bench:
    """The run's normals, its held-out days and its laws."""
    torch.set_num_threads(1)
    config = read_config(asked.run)
    layout = config.layout
    constants = artifacts.open_published(layout, "normals").load()
    fields = artifacts.open_published(layout, "fields")
    held_out = fields.sel(time=within(config.split.validation))
    place = np.linspace(0, held_out.sizes["time"] - 1, asked.days).round().astype(int)
    held_out = held_out.isel(time=place).load()
    known = Normals.of(constants)
    conditions = conditioned_as_observed(held_out["time"], fields, constants)
    parts = [held_out[name].transpose("time", *known.grid.dims).values for name in known.variables]
    baseline = baseline_of(constants, baseline_name(config))
    laws: dict[str, object] = {"nothing known": None, "kriging": GaussianScore(baseline)}
    if config.train.model == "network":
        score = trained(config, published_input(layout, "checkpoints"), constants).score
        laws |= {"one particle": score, "twisted": score}
    condition = torch.from_numpy(conditions["condition"].values)
    rows = known.rows(conditions)
    values = transformed(parts, known.pointwise(rows))
    return Bench(
        asked=asked,
        config=config,
        known=known,
        tail=tail_of(constants),
        truth=known.anomalies(values, rows),
        rows=rows,
        condition=condition,
        season=condition[:, 0].numpy(),
        laws=laws,
    )


def stations(bench: Bench, day: int) -> Case:
    grid, count = bench.known.grid, len(bench.known.variables)
    chosen = np.random.default_rng(day).choice(grid.size, STATIONS, replace=False)
    parts = [cells(grid, chosen, place) for place in range(count)]
    seen = np.zeros((count, grid.size), bool)
    seen[:, chosen] = True
    return Case(functionals=joined(parts), deviation=STATION_ERROR, hidden=hidden(seen, day))


def holes(bench: Bench, day: int) -> Case:
    grid, rng = bench.known.grid, np.random.default_rng(day)
    parts, seen = [], []
    for place in range(len(bench.known.variables)):
        noise = rng.standard_normal((BLOBS + 1) ** 2)
        blobs = plan(grid, BLOBS, "float64").synthesis(noise).ravel()
        weight = np.sort(blobs)[::-1]
        there = blobs < weight[int(MISSING * grid.size)]
        parts.append(cells(grid, np.flatnonzero(there), place))
        seen.append(there)
    return Case(functionals=joined(parts), deviation=HOLE_ERROR, hidden=hidden(np.array(seen), day))


def coarse(bench: Bench, day: int) -> Case:
    known = bench.known
    winds = {place for pair in known.pairs for place in pair}
    chosen = [
        place
        for place, transform in enumerate(known.transforms)
        if isinstance(transform, Identity) and place not in winds
    ]
    lmax = min(21, 2 * known.lmax // 3)
    parts = [low_degrees(known.grid, lmax, place) for place in chosen]
    seen = np.ones((len(known.variables), known.grid.size), bool)
    seen[chosen] = False  # the finer scales of what is given
    return Case(functionals=joined(parts), deviation=0.0, hidden=hidden(seen, day))


def hidden(seen: np.ndarray, day: int) -> np.ndarray:
    places = np.flatnonzero(~seen.ravel())
    some = np.random.default_rng(day).permutation(len(places))[:JUDGED]
    return places[some]


def tell(bench: Bench, name: str, cases: list[Case]) -> None:
    """A row for each law; draws and truth are compared day by day."""
    crps: dict[str, FloatArray] = {}
    for law in bench.laws:
        scores, covered, effective, began = [], [], [], time.monotonic()
        for day, case in enumerate(cases):
            drawn, share = draw(bench, law, case, day)
            flat = bench.truth[day].ravel()[case.hidden]
            values = drawn.reshape(len(drawn), -1)[:, case.hidden]
            scores.append(fair_crps(values[:, None], flat[None]).mean())
            low, high = np.quantile(values, [0.05, 0.95], axis=0)
            covered.append(((flat >= low) & (flat <= high)).mean())
            effective.append(share)
        seconds = (time.monotonic() - began) / len(cases) / bench.asked.draws
        crps[law] = np.array(scores)
        part = ""
        if "kriging" in crps and law != "kriging":
            found = mean_interval(crps[law] - crps["kriging"], season=bench.season)
            part = f"{found.value:+.4f} | {found.low:+.4f} to {found.high:+.4f}"
        nominal = (bench.asked.draws - 1) * 0.9 / (bench.asked.draws + 1)
        print(
            f"| {name}, {len(cases[0].functionals)} | {law} | {crps[law].mean():.4f} | "
            f"{part or ' | '} | {100 * np.mean(covered):.1f} % of {100 * nominal:.1f} | "
            f"{min(effective):.3f} | {seconds:.2f} |",
            flush=True,
        )


def draw(bench: Bench, law: str, case: Case, day: int) -> tuple[FloatArray, float]:
    """Scaled anomalies (draw, variable, *grid), and the effective sample size as a share."""
    known, asked = bench.known.at(bench.rows[day]), bench.asked
    rng = np.random.default_rng([day, 1])
    size = (known.lmax + 1) ** 2
    white = rng.standard_normal((asked.draws, len(known.channels), (known.tail + 1) ** 2))
    noise = known.remainder_of(rng.standard_normal((asked.draws, *bench.truth.shape[1:])))
    beyond = white[..., size:] if bench.tail is not None else None
    share = 1.0
    if law == "nothing known":
        baseline = bench.laws["kriging"].baseline  # type: ignore[attr-defined]
        x = baseline.color(torch.from_numpy(white[..., :size])).numpy()
    else:
        spread = case.functionals.variable * 0.0 + case.deviation**2
        scale = case.functionals(np.abs(known.scale)) if case.deviation else spread
        seen = Seen.of(known, bench.tail, case.functionals, spread * scale**2)
        exact = seen.functionals(bench.truth[day])
        values = exact + np.sqrt(seen.error) * rng.standard_normal(len(exact))
        x, share = given(bench, law, seen, values, day)
        error = rng.standard_normal((asked.draws, len(values)))
        beyond, noise = seen.complete(values, x, beyond, noise, error)
    if bench.tail is not None:
        x = np.concatenate([x, bench.tail.draw(x, beyond)], axis=-1)
    return known.synthesis(x) + noise, share


def given(
    bench: Bench, law: str, seen: Seen, values: FloatArray, day: int
) -> tuple[FloatArray, float]:
    """Whitened draws given the observed values."""
    asked, generator = bench.asked, torch.Generator().manual_seed(day)
    summary = Summary.of(seen)
    rows, _ = summary.values(values)
    operator, noise, observed = (
        torch.from_numpy(part) for part in (summary.operator, summary.noise, rows)
    )
    shape, score = summary.operator.shape[1:], bench.laws[law]
    if law == "kriging":
        posterior = GaussianPosterior(score.baseline, operator, noise)  # type: ignore[attr-defined]
        white = torch.randn((asked.draws, *shape), generator=generator)
        error = torch.randn((asked.draws, len(rows)), generator=generator)
        return posterior.draw(white, error, observed).numpy(), 1.0
    chain = TwistedChain(
        score=score,  # type: ignore[arg-type]
        operator=operator,
        noise=noise,
        times=torch.as_tensor(OrnsteinUhlenbeck().power_grid(asked.evaluations, 2.2)),
        weighted=law == "twisted",
    )
    found, share, size = [], 1.0, asked.particles
    for _ in range(-(-asked.draws // size)):
        drawn = chain(
            observed[None],
            bench.condition[day : day + 1],
            lambda k: torch.randn((1, size, *shape), generator=generator),
            lambda k: torch.randn((1, size, len(rows)), generator=generator),
            lambda k: torch.rand(1, generator=generator),
        )
        found.append(drawn.x[0].numpy())
        share = min(share, float(drawn.effective))
    return np.concatenate(found)[: asked.draws], share


if __name__ == "__main__":
    main()
