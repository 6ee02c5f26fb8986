"""Training steps of the default model: lmax 31, 5 variables, batches of 32, one thread.

And of all cores: threads that take a part of the batch each, against the same step with every
operation divided among the cores by torch; on a machine that has nothing else to do, and on one
where another program has a core.

Other rivals: plain U-Nets as in EDM (Karras et al., 2022, arXiv 2206.00364) on the same grid and in
the same precision, one with as many parameters, one with as much arithmetic; and our network with
the transforms of torch-harmonics. The limit is one large matrix product in that precision.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from dask.system import CPU_COUNT
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from deploy.bench import inputs
from deploy.bench.ours import RingGrid
from deploy.bench.rivals import NotInstalled, Rival, RivalFailed
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns, timed
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.gaussian.fit import Moments, fit
from pipeline.network.data_parallel import Threads
from pipeline.network.score_network import ScoreNet, native_precision, score_network
from pipeline.network.train import Training, TrainingConfig
from pipeline.sphere.coefficients import lmax_of

LMAX, CHANNELS, STATIC, BATCH = 31, 5, 12, 32
FIELDS = 256

WHAT = "training, default model, lmax 31, 5 variables"
UNET = Row(row=WHAT, rival="U-Net of EDM, as many parameters", unit="samples/s", goal=1.0)
EQUAL = Row(row=WHAT, rival="U-Net of EDM, as much arithmetic", unit="samples/s", goal=1.0)
TORCH_HARMONICS = Row(row=WHAT, rival="same network, torch-harmonics", unit="samples/s", goal=2.0)
CORES = WHAT + ", all cores"
RIVAL = "the same, operations divided among cores"
QUIET = Row(row=CORES, rival=RIVAL, unit="samples/s", goal=1.0)
BUSY = Row(row=CORES + ", another program on one", rival=RIVAL, unit="samples/s", goal=1.5)
ROWS = (UNET, EQUAL, TORCH_HARMONICS, QUIET, BUSY)
SEVERAL = 8
SIZE = 2048  # of the matrices of the limit


def measure(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)
    file = whitened_file()
    trainer, step = prepared(file, BATCH)
    ours = timed(step)

    flops, product = _flops(step), timed(_product())
    for row, size, wanted in (
        (UNET, _parameters, _parameters(trainer.model)),
        (EQUAL, lambda network: 3 * BATCH * network.flops(), flops),
    ):
        network, theirs = unet_step(size, wanted)
        best = in_turns(ours, timed(theirs), product, seconds=15, quick=quick)
        told = (
            f"{_parameters(trainer.model):,} and {_parameters(network):,} parameters, "
            f"{flops / 1e9:.0f} and {_flops(theirs) / 1e9:.0f} GFlop in a step"
        )
        share = flops / best[0] / (2 * SIZE**3 / best[2])
        yield row.measured(BATCH / best[0], BATCH / best[1], limit_share=share, note=told)
    try:
        with Rival("torch-harmonics", "training", file=file, batch=BATCH) as rival:
            best = in_turns(ours, rival.call("step"), seconds=15, quick=quick)
    except (NotInstalled, RivalFailed) as reason:
        yield TORCH_HARMONICS.absent(str(reason))
    else:
        yield TORCH_HARMONICS.measured(BATCH / best[0], BATCH / best[1])
    yield from _on_all_cores(file, quick)


def _on_all_cores(file: str, quick: bool) -> Iterator[Row]:
    torch.set_num_threads(CPU_COUNT)
    (apart, ours), (together, theirs) = prepared(file, BATCH), prepared(file, BATCH)
    apart.threads, together.threads = Threads(CPU_COUNT), Threads(1)
    best = in_turns(timed(ours), timed(theirs), seconds=15, quick=quick)
    yield QUIET.measured(BATCH / best[0], BATCH / best[1])
    with _another_program():  # the quickest of single steps would be those that were let alone
        best = in_turns(_several(ours), _several(theirs), seconds=45, quick=quick)
    yield BUSY.measured(BATCH / best[0], BATCH / best[1])
    torch.set_num_threads(1)


def _several(step: Callable[[], None]) -> Callable[[], float]:
    """Seconds of one of several steps, made one after the other."""

    def several() -> None:
        for _ in range(SEVERAL):
            step()

    whole = timed(several)
    return lambda: whole() / SEVERAL


@contextmanager
def _another_program() -> Iterator[None]:
    """A program that wants one core as long as this lasts."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


def whitened_file() -> str:
    """White coefficients, CHANNELS in a row for each of FIELDS fields."""
    return str(inputs.made(RingGrid.gaussian(LMAX + 1), LMAX, FIELDS * CHANNELS, slope=0.0)[0])


def prepared(file: str, batch: int) -> tuple[Training, Callable[[], None]]:
    """The default model in training, and one step of it."""
    x = np.load(file).reshape(FIELDS, CHANNELS, -1)
    trainer = in_training(default_model(x, native_precision(torch.device("cpu"))))
    fields, season = torch.from_numpy(x[:batch]), seasons(FIELDS)[:batch]
    return trainer, lambda: trainer.advance(fields, season)


def seasons(count: int) -> Tensor:
    """Conditions of so many fields, over a year: (field, 1)."""
    return torch.linspace(0, 2 * np.pi, count, dtype=torch.float64)[:, None]


def default_model(
    x: np.ndarray, precision: torch.dtype, *, law: str = "m-block", width: int = 64
) -> ScoreNet:
    """The untrained score of whitened fields (field, channel, coefficient)."""
    channels, lmax = x.shape[1], lmax_of(x.shape[2])
    factor = np.eye(channels) * ((1.0 + np.arange(lmax + 1)) ** -1.5)[:, None, None]
    choice = {"shrinkage": np.full(lmax + 1, 0.5)} if law == "m-block" else {}
    return score_network(
        baseline=fit(law, Moments.of(x, None if law == "m-block" else 0), choice),
        factor=factor,
        static=np.random.default_rng(0).standard_normal((STATIC, (lmax + 1) ** 2)),
        width=width,
        precision=precision,
    )


def in_training(model: ScoreNet) -> Training:
    """The model before its first step of very many."""
    process = OrnsteinUhlenbeck()
    return Training(
        model=model,
        config=TrainingConfig(steps=1_000_000),
        process=process,
        times=process.power_grid(64),
    )


class Block(nn.Module):
    """Residual block of a U-Net, scaled and shifted by the embedding."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(2, inputs), nn.GroupNorm(2, outputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = functional.silu(self.norm_out(hidden) * (1 + scale) + shift)
        return self.skip(x) + self.conv_out(hidden)


class UNet(nn.Module):
    """Three resolutions with `width`, 2 `width`, 2 `width` features, two blocks each way."""

    def __init__(self, width: int, embedding: int = 128) -> None:
        super().__init__()
        sizes = (width, 2 * width, 2 * width)
        self.embedding = nn.Sequential(
            nn.Linear(3, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.down, self.up, before, kept = nn.ModuleList(), nn.ModuleList(), width, []
        for size in sizes:
            for _ in range(2):
                self.down.append(Block(before, size, embedding))
                before = size
                kept.append(size)
        for size in reversed(sizes):
            for _ in range(2):
                self.up.append(Block(before + kept.pop(), size, embedding))
                before = size
        self.norm, self.out = nn.GroupNorm(2, width), nn.Conv2d(width, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, log_noise: Tensor, season: Tensor) -> Tensor:
        angles = [log_noise, season.cos(), season.sin()]
        embedding = self.embedding(torch.stack(angles, dim=1))
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for number, block in enumerate(self.down):
            if number in (2, 4):
                x = functional.avg_pool2d(x, 2)
            x = block(x, embedding)
            kept.append(x)
        for number, block in enumerate(self.up):
            if number in (2, 4):
                x = functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, kept.pop()], dim=1), embedding)
        return self.out(functional.silu(self.norm(x))).float()

    @torch.no_grad()
    def flops(self) -> int:
        """Of one field, forward."""
        grid, one = RingGrid.gaussian(LMAX + 1), torch.zeros(1)
        return _flops(lambda: self(torch.zeros(1, CHANNELS, *grid.shape), one, one))


def unet_step(size: Callable[[UNet], float], wanted: float) -> tuple[UNet, Callable[[], None]]:
    """The U-Net whose size is closest to `wanted`, and one training step of it as EDM does it."""
    torch.manual_seed(0)
    networks = (UNet(width) for width in range(4, 68, 2))
    network = min(networks, key=lambda one: abs(size(one) - wanted))
    average = copy.deepcopy(network).requires_grad_(False)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    precision = native_precision(torch.device("cpu"))
    grid = RingGrid.gaussian(LMAX + 1)
    _, file = inputs.made(grid, LMAX, FIELDS * CHANNELS)
    fields = torch.from_numpy(np.load(file)).view(FIELDS, CHANNELS, *grid.shape)[:BATCH]
    season = torch.linspace(0, 2 * np.pi, BATCH)
    data = float(fields.std())

    def step() -> None:
        sigma = torch.exp(1.2 * torch.randn(BATCH) - 1.2)[:, None, None, None] * data
        noised = fields + sigma * torch.randn_like(fields)
        total = (sigma**2 + data**2).sqrt()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            raw = network(noised / total, sigma.flatten().log() / 4, season)
        drawn = data**2 / total**2 * noised + sigma * data / total * raw
        loss = (((drawn - fields) * total / (sigma * data)) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 0.002)

    return network, step


def _product() -> Callable[[], Tensor]:
    a, b = torch.randn(2, SIZE, SIZE).to(native_precision(torch.device("cpu")))
    return lambda: a @ b


def _flops(function: Callable[[], object]) -> int:
    """Of the products and convolutions that a call takes."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
