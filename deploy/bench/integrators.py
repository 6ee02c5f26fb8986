"""The quality table of integrators: one trained run, sampled by several of them at several costs.

    python -m deploy.bench.integrators CONFIG [--dates 24] [--realizations 4]

Reads the finished run of CONFIG and draws its verification dates anew, each time with the same
noise. Prints a table in Markdown: every entry is a score over that of the noise floor (real fields
of other years), the geometric mean over variables; energy distance is as it is, in the units of
the floor's. Differences between rows are due to the integrator alone. A second table says how far
samplers are from their own limit (convergence.py), EDM's among them.
"""

import argparse
import math
import sys
import time
from dataclasses import replace

import torch
import xarray as xr
from distributed import Client

from deploy.bench.convergence import convergence
from flows.config.schema import read_config
from flows.stages.base import published_input
from flows.stages.conditions import conditioned_as_observed
from flows.stages.generate.draws import white_remainder, whitened_draws
from flows.stages.trained_model import trained
from flows.stages.verify.candidates import Known, Lineup, block_of_dates, held_out_times
from flows.stages.verify.compared import compared, whitened_of, with_power
from flows.stages.verify.verify import drawn_inputs
from pipeline.fields.whitening import to_fields
from pipeline.scores.arena import FLOOR, Fields, Sample
from pipeline.scores.score_card import here, score_card
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

INTEGRATORS = ("gme", "gei-heun", "z-heun", "z-ab2")
EVALUATIONS = (4, 6, 8, 12, 24)
SCORES = ("mean", "sd", "skewness", "q999", "spectrum")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("config")
    arguments.add_argument("--dates", type=int, default=24)
    arguments.add_argument("--realizations", type=int, default=4)
    given = arguments.parse_args()
    config = read_config(given.config)
    config = replace(config, verify=replace(config.verify, dates=given.dates))
    layout = StoreLayout(config.run.root)
    normals = artifacts.open_published(layout, "normals").load()
    model = trained(config, published_input(layout, "checkpoints"), normals)
    fields = artifacts.open_published(layout, "fields")
    dates = held_out_times(fields, config)
    times = conditioned_as_observed(dates, fields, normals)
    numbers = range(given.realizations)
    white = white_remainder(config, normals, numbers, times["time"])
    ensembles = {}
    for name in INTEGRATORS:
        for evaluations in EVALUATIONS:
            asked = replace(config.generate, integrator=name, evaluations=evaluations)
            began = time.monotonic()
            with torch.no_grad():
                x = whitened_draws(replace(config, generate=asked), model, normals, numbers, times)
            ensembles[f"{name} {evaluations}"] = to_fields(x, normals, white)
            print(f"{name} {evaluations}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as one:
        inputs = drawn_inputs(config, layout, one, quiet)
        stores = compared(inputs, layout, one, quiet)
    arena = Lineup(inputs, stores, block_of_dates(inputs.known)).arena
    drawn = {name: sample(fields, inputs.known) for name, fields in ensembles.items()}
    arena = replace(arena, candidates=drawn | {FLOOR: arena.candidates[FLOOR]})
    card = score_card(arena, here(arena), arena.truth.fields.names, next(iter(drawn))).table
    print(f"| integrator, evaluations | {' | '.join(SCORES)} | correlation | energy distance |")
    print("|---|" + "---|" * (len(SCORES) + 2))
    for name in ensembles:
        row = [_mean_ratio(card, score, name) for score in SCORES]
        row.append(card["joint"]["correlation"][name]["ratio"]["value"])
        distance = card["joint"]["energy_distance"]
        row.append(distance[name]["value"] / distance["noise-floor"]["value"])
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    print("\n| sampler | evaluations | distance from its limit | of log power |\n|---|---|---|---|")
    condition = torch.from_numpy(times["condition"].values).repeat(given.realizations, 1)
    for name, evaluations, apart, power in convergence(model, condition):
        print(f"| {name} | {evaluations} | {apart:.4f} | {power:.4f} |", flush=True)
    return 0


def sample(fields: xr.Dataset, known: Known) -> Sample:
    """Fields (realization, time, *grid) in memory as a candidate."""
    parts = [
        with_power(whitened_of(member, known.conditions, known.normals), known.normals)
        for member in (fields.isel(realization=k) for k in range(fields.sizes["realization"]))
    ]
    both = xr.concat(parts, "realization")
    return Sample(fields=Fields(dataset=fields), x=both["x"], power=both["power"])


def quiet(done: int, total: int, text: str) -> None:
    """Nothing is said of progress."""


def _mean_ratio(card: dict, score: str, name: str) -> float:
    ratios = [
        scores[score][name]["ratio"]["value"]
        for scores in card["scores"].values()
        if score in scores and scores[score][name]["ratio"]
    ]
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


if __name__ == "__main__":
    sys.exit(main())
