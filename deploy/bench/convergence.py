"""How far samplers are from their own limit, by evaluations: ours and EDM's on the same network.

Every sampler starts from the same noise at each cost, so its error needs no ensemble to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from deploy.bench.edm import edm_heun
from flows.config.schema import Generate
from flows.stages.trained_model import Trained
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.sphere.coefficients import degrees, lmax_of

EXPONENT = Generate(realizations=1, times=("2000-01-01",)).grid_exponent
OURS = {"z-heun": (2.0, (6, 8, 12)), "z-ab2": (EXPONENT, (4, 6, 8, 12))}
EDM_STEPS = (5, 8, 10, 12, 16, 20)
LIMIT = 96  # evaluations
BATCH = 16

Draw = Callable[[Tensor, Tensor], Tensor]  # fields of noise and condition


def convergence(model: Trained, condition: Tensor) -> Iterator[tuple[str, int, float, float]]:
    """For each sampler and cost the distance of its fields from those of its limit.

    Args:
        condition: of each field, (field, feature).
    Yields:
        Name; evaluations; root mean square of the difference over that of the fields; root mean
        square over variables and degrees of the logarithm of the ratio of their powers.
    """
    noise = torch.randn(
        (len(condition), *model.score.baseline.variance.shape),
        generator=torch.Generator().manual_seed(0),
    )

    def drawn(draw: Draw) -> Tensor:
        rows = [slice(start, start + BATCH) for start in range(0, len(noise), BATCH)]
        return torch.cat([draw(noise[part], condition[part]) for part in rows])

    limit = drawn(_ours(model, "z-ab2", EXPONENT, LIMIT))
    for name, (exponent, costs) in OURS.items():
        for evaluations in costs:
            fields = drawn(_ours(model, name, exponent, evaluations))
            yield f"{name}, exponent {exponent}", evaluations, *_distances(fields, limit)
    limit = drawn(_edm(model, LIMIT // 2))
    for steps in EDM_STEPS:
        yield "EDM-Heun", 2 * steps - 1, *_distances(drawn(_edm(model, steps)), limit)


def _ours(model: Trained, name: str, exponent: float, evaluations: int) -> Draw:
    sampler = Sampler(
        integrator=INTEGRATORS[name],
        evaluations=evaluations,
        grid=partial(OrnsteinUhlenbeck().power_grid, exponent=exponent),
    )
    return lambda noise, condition: sampler(model.flow, lambda step: noise, condition)


def _edm(model: Trained, steps: int) -> Draw:
    return lambda noise, condition: edm_heun(model.score, noise, condition, steps)


def _distances(fields: Tensor, limit: Tensor) -> tuple[float, float]:
    apart = (fields - limit).double().square().sum() / limit.double().square().sum()
    ratio = torch.log(_power(fields) / _power(limit))
    return float(apart.sqrt()), float(ratio.square().mean().sqrt())


def _power(x: Tensor) -> Tensor:
    """Sum of squares of each channel and degree."""
    degree = torch.as_tensor(degrees(lmax_of(x.shape[-1])))
    squares = x.double().square().sum(dim=0)
    return squares.new_zeros(len(squares), int(degree[-1]) + 1).index_add_(1, degree, squares)
