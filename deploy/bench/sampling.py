"""Seconds of a realization: the default sampler against EDM's on the same network; time only.

The network is the default one, untrained (its weights do not change the time), in the microbatches
of `generate`. EDM-Heun with N steps takes 2 N - 1 evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from deploy.bench.edm import edm_heun
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns, timed
from deploy.bench.training import CHANNELS, LMAX, prepared, seasons, whitened_file
from flows.config.schema import Generate
from pipeline.diffusion.matching import MatchedScore, match
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.network.calibration import Calibration
from pipeline.network.score_network import ScoreNet

DEFAULT = Generate(realizations=1, times=("2000-01-01",))
STEPS = (10, 16)
ROWS = tuple(
    Row(
        row=f"sampling, {DEFAULT.integrator}, {DEFAULT.evaluations} evaluations",
        rival=f"EDM-Heun, {2 * steps - 1} evaluations",
        unit="s/realization",
        goal=3.0,
    )
    for steps in STEPS
)


def measure(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)
    trainer, _ = prepared(whitened_file(), 1)
    score, size = trainer.average, DEFAULT.microbatch
    conditions, flow = seasons(16), flow_of(score)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(size, CHANNELS, (LMAX + 1) ** 2, generator=generator)
    sampler = default_sampler()
    ours = timed(lambda: sampler(flow, lambda step: noise, conditions[:size]))
    theirs = [timed(partial(edm_heun, score, noise, conditions[:size], n)) for n in STEPS]
    best = in_turns(ours, *theirs, seconds=15, quick=quick)
    for row, seconds in zip(ROWS, best[1:], strict=True):
        yield row.measured(best[0] / size, seconds / size)


def flow_of(score: ScoreNet) -> MatchedScore:
    """The probability flow of a score on any device, which gets the tables of a finished one."""
    process, device = OrnsteinUhlenbeck(), score.baseline.variance.device
    score.calibration = Calibration(score.baseline, 1e-3, process.horizon).to(device)
    generator = torch.Generator().manual_seed(0)
    return match(score, seasons(16).to(device), process.power_grid(8), generator)


def default_sampler() -> Sampler:
    """As `generate` draws by default."""
    return Sampler(
        integrator=INTEGRATORS[DEFAULT.integrator],
        evaluations=DEFAULT.evaluations,
        grid=partial(OrnsteinUhlenbeck().power_grid, exponent=DEFAULT.grid_exponent),
    )
