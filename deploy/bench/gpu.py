"""`make gpu`: every GPU of this machine against its CPU: equal results, rates, memory.

    python -m deploy.bench.gpu [--device cpu]

Results are compared in float32 without the shortcuts of the GPU (TF32), and once more in the
precision that a run takes there. A difference is the root mean square of all numbers over that of
the CPU's. Weights are random, so that the network says something; noise is drawn on the CPU. Rates
are of steps of training and of draws, each in the precision that is native to its device, on all
cores of the CPU; the two take turns. Products are counted as `spherescore plan` does. With
`--device cpu` the CPU is compared with itself at a tiny size, to see that all of it runs. Ends with
1 if a result is not equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from dask.system import CPU_COUNT
from torch import Tensor

from deploy.bench.rows import figure
from deploy.bench.sampling import DEFAULT, default_sampler, flow_of
from deploy.bench.timing import in_turns, timed
from deploy.bench.training import default_model, in_training, seasons
from flows.plan.sizes import activations
from flows.plan.workload import Workload
from flows.stages.train.judging import STEP
from pipeline.network.score_network import ScoreNet, native_precision

CPU = torch.device("cpu")
# Of what is computed from the same numbers in another order, and of what rounds to eight bits.
TOLERANCES = {
    "float32": {"synthesis": 1e-5, "analysis": 1e-5, "score": 1e-4, "gradient": 1e-3, "draw": 1e-3},
    "bfloat16": {"score": 0.03, "gradient": 0.05, "draw": 0.02},
}
NO_GPU = (
    "torch sees no GPU here: install a build of torch for yours (TORCH_INDEX of the Makefile), or "
    "try the script itself with --device cpu"
)


@dataclass(frozen=True)
class Load:
    """Sizes of a model, and how many fields it trains on and draws at once."""

    lmax: int
    channels: int
    width: int
    batch: int
    drawn: tuple[int, ...]
    law: str = "m-block"

    def __str__(self) -> str:
        return f"lmax {self.lmax}, {self.channels} variables, width {self.width}"

    @property
    def work(self) -> Workload:
        nlat = self.lmax + 1
        return Workload(
            times=1,
            fitted=1,
            channels=self.channels,
            nlat=nlat,
            points=2 * nlat**2,
            lmax=self.lmax,
            ensemble=(1, 1),
            verification=(1, 1),
            batch=self.batch,
            width=self.width,
            block_degree=None if self.law == "m-block" else 0,
        )

    def fields(self) -> np.ndarray:
        """White coefficients (field, channel, coefficient), always the same."""
        shape = max(64, self.batch), self.channels, (self.lmax + 1) ** 2
        return np.random.default_rng(0).standard_normal(shape, np.float32)


LOADS = (
    Load(31, 5, 64, 32, (DEFAULT.microbatch, 64)),
    Load(127, 8, 64, 8, (DEFAULT.microbatch,), law="channels"),
)
TINY = (Load(7, 2, 8, 4, (2,)),)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    tiny = parser.parse_args(arguments).device == "cpu"
    if not tiny and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    cores = 1 if tiny else CPU_COUNT
    torch.set_num_threads(cores)
    count = 1 if tiny else torch.cuda.device_count()
    devices = [CPU if tiny else torch.device("cuda", number) for number in range(count)]
    print(f"CPU: {cores} threads, {_name(native_precision(CPU))}; torch {torch.__version__}")
    equal = True
    for device in devices:
        own = "the CPU" if tiny else torch.cuda.get_device_name(device)
        print(f"\n{device}: {own}, {_name(native_precision(device))}\n", flush=True)
        print("| result | precision | difference | tolerance | |\n|---|---|---|---|---|")
        for name, precision, apart, allowed in differences((TINY if tiny else LOADS)[0], device):
            equal = equal and apart <= allowed
            said = "" if apart <= allowed else "not equal"
            print(f"| {name} | {precision} | {apart:.1e} | {allowed:g} | {said} |", flush=True)
        print(f"\n| what | CPU | {device} | unit | ratio | products/s | memory of the device |")
        print("|---|---|---|---|---|---|---|")
        for load in TINY if tiny else LOADS:
            for line in rates(load, device, quick=tiny):
                print(line, flush=True)
    if not equal:
        print(f"\nnot all results of {', '.join(map(str, devices))} are those of the CPU")
    return 0 if equal else 1


def differences(load: Load, device: torch.device) -> Iterator[tuple[str, str, float, float]]:
    """Name, precision, relative difference from the CPU's float32, and what is allowed."""
    right = results(load, CPU, torch.float32)
    native = native_precision(device)
    for precision in dict.fromkeys((torch.float32, native)):
        found, name = results(load, device, precision), _name(precision)
        for what, allowed in TOLERANCES[name].items():
            yield what, name, difference(found[what], right[what]), allowed


def difference(one: Tensor, right: Tensor) -> float:
    """The root mean square of what two arrays differ by, over that of the second; nothing that is
    not a number is equal to one."""
    apart = (one.double() - right.double()).norm() / right.double().norm()
    return float("inf") if apart.isnan() else float(apart)


def results(load: Load, device: torch.device, precision: torch.dtype) -> dict[str, Tensor]:
    """What is compared, on the CPU: transforms, a score, the gradient of a step, a draw."""
    x, model = load.fields(), restless(load, precision).to(device)
    noise = torch.from_numpy(x[: load.drawn[0]])
    condition = seasons(len(x))
    with _exact():
        fields = model.harmonics.synthesis(noise.to(device))
        back = model.harmonics.analysis(fields)
        with torch.no_grad():
            t = torch.linspace(0.05, 1.0, len(noise), dtype=torch.float64)
            given = t.to(device), noise.to(device), condition[: len(noise)].to(device)
            score = model.residual(*given)
        trainer = in_training(model)
        flow = flow_of(trainer.average)
        drawn = default_sampler()(flow, lambda step: noise.to(device), given[2])
        batch = slice(load.batch)
        trainer.advance(torch.from_numpy(x[batch]).to(device), condition[batch].to(device))
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    found = (fields, back, score, torch.cat(gradients), drawn)
    names = ("synthesis", "analysis", "score", "gradient", "draw")
    return {name: one.detach().cpu() for name, one in zip(names, found, strict=True)}


def restless(load: Load, precision: torch.dtype) -> ScoreNet:
    """The default model with random numbers in its weights, whose last layer begins with zeros."""
    model = default_model(load.fields(), precision, law=load.law, width=load.width)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def rates(load: Load, device: torch.device, *, quick: bool) -> Iterator[str]:
    """Rows of the table: steps of training, and draws, so many at once."""
    made = load.work.network_products
    steps = [training_step(load, one) for one in (CPU, device)]
    _forget_peak(device)
    seconds = in_turns(*map(timed, steps), least=2, seconds=20, quick=quick)
    counts = STEP * load.batch * made, load.batch
    note = f" ({figure(activations(load.work, 1) / 1e9)} planned for gradients in float32)"
    yield _line(f"training, {load}, batch {load.batch}", "fields", counts, seconds, device, note)
    del steps
    both = CPU, device
    flows = [flow_of(restless(load, native_precision(one)).to(one)) for one in both]
    for drawn in load.drawn:
        draws = [drawing(load, flow, one, drawn) for flow, one in zip(flows, both, strict=True)]
        _forget_peak(device)
        seconds = in_turns(*map(timed, draws), least=2, seconds=20, quick=quick)
        counts = DEFAULT.evaluations * drawn * made, drawn
        yield _line(f"drawing, {load}, {drawn} at once", "realizations", counts, seconds, device)


def training_step(load: Load, device: torch.device) -> Callable[[], None]:
    """One step of the default training, done when it returns."""
    trainer = in_training(restless(load, native_precision(device)).to(device))
    fields = torch.from_numpy(load.fields()[: load.batch]).to(device)
    condition = seasons(load.batch).to(device)

    def step() -> None:
        trainer.advance(fields, condition)
        _finish(device)

    return step


def drawing(load: Load, flow: object, device: torch.device, count: int) -> Callable[[], None]:
    """A draw of so many realizations at once, done when it returns."""
    x = load.fields()
    noise = torch.from_numpy(np.resize(x, (count, *x.shape[1:]))).to(device)
    draw = partial(default_sampler(), flow, lambda step: noise, seasons(count).to(device))

    def drawn() -> None:
        draw()
        _finish(device)

    return drawn


def _line(
    what: str,
    unit: str,
    counts: tuple[float, int],
    seconds: list[float],
    device: torch.device,
    note: str = "",
) -> str:
    products, number = counts
    cpu, gpu = (number / each for each in seconds)
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    memory = f"{figure(held / 1e9)} GB{note}" if held else "-"
    return (
        f"| {what} | {figure(cpu)} | {figure(gpu)} | {unit}/s | {figure(gpu / cpu)} | "
        f"{products / seconds[1]:.2g} | {memory} |"
    )


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _exact() -> Iterator[None]:
    """Products and convolutions of GPUs in the precision that their numbers have."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


if __name__ == "__main__":
    sys.exit(main())
