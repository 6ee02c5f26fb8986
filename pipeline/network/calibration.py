"""Calibration of a learned residual on fields that it was not trained on.

A baseline is fitted to the training fields and the network trains on the same ones: in the
baseline's coordinates they vary less than fields it has not seen, and the network learns to shrink
them. Sampling accumulates the shrinkage, and the ensemble has too little variance. On validation
fields the best linear combination of the network's F and of its input u = c_in y,

    F <- gain F + slope u,

is least squares per diffusion time and group of directions of like variance, with the weights s / V
that J_G gives F as its steps become small. So it does not lower J_G on the fields it was fitted to
but for the size of the steps; whether it raises it on others the test split says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.diffusion.process import at_times
from pipeline.gaussian.fit import Baseline

GROUPS = 16
NODES = 12


class Calibration(nn.Module):
    """Gain and slope at `nodes` of log t, linear in between, for groups of directions.

    Args:
        baseline: its variances, sorted, are cut into `GROUPS` groups of equal size.
        shortest, longest: diffusion times of the first and the last node.
    """

    nodes: Tensor
    group: Tensor
    gain: Tensor
    slope: Tensor

    def __init__(self, baseline: Baseline, shortest: float, longest: float) -> None:
        super().__init__()
        s = baseline.variance
        rank = s.flatten().argsort(stable=True).argsort(stable=True)
        group = (rank * GROUPS // s.numel()).reshape(s.shape)
        ends = torch.log(torch.tensor([shortest, longest], dtype=torch.float64))
        self.register_buffer("nodes", torch.linspace(float(ends[0]), float(ends[1]), NODES))
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("gain", torch.ones(NODES, GROUPS))
        self.register_buffer("slope", torch.zeros(NODES, GROUPS))

    def forward(self, t: Tensor, standardised: Tensor, u: Tensor) -> Tensor:
        """The calibrated F of fields at times t (batch,); F and u (batch, channel, coefficient)."""
        at = torch.log(t.to(self.nodes))
        gain, slope = (
            at_times(at, self.nodes, table)[:, self.group] for table in (self.gain, self.slope)
        )
        return gain * standardised + slope * u

    def sums(self, standardised: Tensor, u: Tensor, target: Tensor) -> Tensor:
        """What `solve` is told of some fields at one time; sums of parts of the fields add up.

        Args:
            standardised, u, target: the network's F, its input and the F it should predict,
                (field, channel, coefficient), each times the square root of its weight.
        Returns:
            Sums of FF, Fu, uu, F target and u target over fields and the directions of a group,
            (5, group).
        """

        def per_group(a: Tensor, b: Tensor) -> Tensor:
            products = (a.double() * b.double()).sum(dim=0).flatten()
            return products.new_zeros(GROUPS).index_add(0, self.group.flatten(), products)

        pairs = (
            (standardised, standardised),
            (standardised, u),
            (u, u),
            (standardised, target),
            (u, target),
        )
        return torch.stack([per_group(a, b) for a, b in pairs])

    def solve(self, node: int, sums: Tensor) -> None:
        """Fit the gains and slopes of one node to the sums of fields at its time."""
        ff, fu, uu, fy, uy = sums
        normal = torch.stack([torch.stack([ff, fu], -1), torch.stack([fu, uu], -1)], -2)
        right = torch.stack([fy, uy], -1)
        # A network that says nothing has no gain to find.
        silent = ff <= 1e-12 * uu
        normal[silent] = torch.eye(2, dtype=normal.dtype)
        right[silent] = torch.tensor([1.0, 0.0], dtype=right.dtype)
        solution = torch.linalg.solve(normal, right).to(self.gain)
        self.gain[node], self.slope[node] = solution[:, 0], solution[:, 1]
