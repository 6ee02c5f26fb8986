"""What measured energies of a score could buy: a grid of times, and the noise of a step.

No command uses them: they say of the grids and steps that are used how far from the best they are
(docs/mathematics.md, 2 and 4). `residual_energy` measures the energies.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.integrators import Transition, gme
from pipeline.diffusion.process import OrnsteinUhlenbeck


def energy_grid(
    process: OrnsteinUhlenbeck, steps: int, times: FloatArray, energy: FloatArray
) -> FloatArray:
    """Times, decreasing from the horizon to exactly 0, with steps h ~ |dr/dt|^(-1/2).

    With r(t) = E|rho_t|^2 this minimises sum h^2 |dr/dt| / 2, to leading order what a sampler
    of first order pays for its steps [nats]. A tenth of the steps is spread evenly, so that
    none leaps over a stretch where r seems constant.

    Args:
        times: where r was measured, (time,), at least two in (0, horizon].
        energy: r there, (time,); made to decrease in t by isotonic regression, because
            measurements are noisy. Towards 0 and the horizon it goes on as it ends.
    """
    if steps < 1 or len(times) < 2 or min(times) <= 0 or max(times) > process.horizon:
        raise ValueError(
            "need steps >= 1 and at least two times in (0, horizon]; got "
            f"{steps} steps, times {times}, horizon {process.horizon}"
        )
    order = np.argsort(times)
    t, r = times[order], isotonic_regression(energy[order], increasing=False).x
    density = np.sqrt(-np.diff(r) / np.diff(t))
    t = np.r_[0, t[1:-1], process.horizon]
    even = density @ np.diff(t) / (9 * process.horizon) or 1.0
    share = np.r_[0, np.cumsum((density + even) * np.diff(t))]
    grid: FloatArray = np.interp(np.linspace(share[-1], 0, steps + 1), share, t)
    return grid


def opt(times: FloatArray, energy: FloatArray) -> Transition:
    """GME with the noise that fits what a score explains beyond its Gaussian part, tau^2 = Var X'.

    Args:
        times: diffusion times, (time,); the energy is linear in between.
        energy: E rho^2 at these times, (time, channel, coefficient), as `residual_energy` measures
            it in the coordinates of the baseline. In them E b^2 = (V - 1)^2 / V + E rho^2.
    """
    order = np.argsort(times)
    nodes, table = torch.as_tensor(times[order]), torch.as_tensor(energy[order])

    def transition(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        phi, w, tau = gme(t, t_next, s)
        at = t.flatten().to(nodes)
        above = torch.searchsorted(nodes, at).clamp(1, len(nodes) - 1)
        part = ((at - nodes[above - 1]) / (nodes[above] - nodes[above - 1])).clamp(0, 1)
        rho_2 = torch.lerp(table[above - 1], table[above], part[:, None, None]).to(s)
        squared = tau**2 - w**2 * rho_2.reshape(t.shape[:-2] + s.shape)
        if (squared <= 0).any():
            raise ValueError(
                "the energies leave no variance to a step of OPT; the score of its sampler is "
                "not the one they were measured with, or is no score: sample with GME"
            )
        return phi, w, squared.sqrt()

    return transition
