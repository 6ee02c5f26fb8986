"""Training of a score: batches of whitened fields in, states out.

The loss is the misfit of F, the standardised residual of score.py, in the coordinates of the
baseline, with the weights s / V that J_G gives the directions of one diffusion time: where noise
hides the data there is nothing to learn. Their mean is one at every time, and times are
log-normal, so that every scale of noise counts. What is reported, and what chooses the weights
that are kept, is not the loss, whose floor is unknown, but J_G on validation fields.

Matrices between hidden features are moved by orthogonalised momentum (Muon), all else by AdamW.
All randomness of a step is a function of the seed and the step, and a state holds everything
else, so a training that was stopped and resumed gives the same weights as one that was not.
Notation: docs/mathematics.md, 3 and 5.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.arrays import FloatArray
from pipeline.certificate.path_bound import at_once, certify
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Condition, Given, Posterior, features_of
from pipeline.gaussian.fit import Baseline
from pipeline.network.calibration import Calibration
from pipeline.network.data_parallel import Group, Threads, divided
from pipeline.network.score_network import ScoreNet
from pipeline.scores.intervals import Witnesses


class TrainingDiverged(RuntimeError):
    """The loss, or its gradient, is no longer a number."""

    exit_code = 50


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how to train; ends at `steps` or `minutes`, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None
    accumulate: int = 1  # parts of a batch, one after the other, where memory is short
    learning_rate: float = 2e-3
    warmup: int = 50
    decay_from: float = 0.3  # fraction of the training after which the rate falls to zero
    weight_decay: float = 0.3  # of the matrices
    typical_time: float = 0.04  # median and spread of the log-normal diffusion times
    time_spread: float = 2.0
    shortest_time: float = 5e-4
    forgotten: float = 0.1  # part of the fields whose covariates are withheld, all or each alone
    validations: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("a training needs an end: give steps or minutes")


@dataclass(kw_only=True)
class Training:
    """A score network on its way, one `advance` a step.

    Attributes:
        model: the network that is optimised.
        average: the moving average of its weights, which samples and is certified.
        best: weights of `average` at the best validation so far.
        seconds: time spent so far, in this process and before; set it after `restore`.
        history: one entry per validation: step, loss, nats, error (standard error by blocks of
            times).
        rollbacks: one entry per return to an earlier state after a divergence: step, to, reason.
            From each on the learning rate is half of what it was, and noise is other noise.
    """

    model: ScoreNet
    config: TrainingConfig
    process: OrnsteinUhlenbeck
    times: FloatArray
    group: Group = field(default_factory=Group)
    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    history: list[dict[str, float]] = field(default_factory=list)
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    threads: Threads = field(init=False)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.best = weights(self.average)
        matrices = self.model.network.matrices()
        rest = {id(p): p for p in self.model.parameters()}
        for matrix in matrices:
            del rest[id(matrix)]
        # Masks are drawn from one generator, and a GPU has its own threads.
        on_gpu = next(self.model.parameters()).is_cuda
        alone = self.model.network.dropout > 0 or on_gpu
        self.threads = Threads(1 if alone else torch.get_num_threads())
        self.average.threads = Threads(1 if on_gpu else torch.get_num_threads())
        rate, decay = self.config.learning_rate, self.config.weight_decay
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest.values(), lr=rate, weight_decay=1e-4, betas=(0.9, 0.99)),
        )

    @property
    def progress(self) -> float:
        """Fraction of the training that is done, by steps or by time, in [0, 1]."""
        fractions = [0.0]
        if self.config.steps is not None:
            fractions.append(self.step / self.config.steps)
        if self.config.minutes is not None:
            fractions.append(self.seconds / (60 * self.config.minutes))
        return min(1.0, max(fractions))

    @property
    def validation_due(self) -> bool:
        return self.progress * self.config.validations >= len(self.history) + 1

    def advance(
        self,
        x_0: Tensor,
        condition: Given,
        baseline: Baseline | None = None,
        *,
        batch: int | None = None,
    ) -> None:
        """One optimisation step on whitened fields (batch, channel, coefficient).

        Args:
            x_0: the fields of this rank's part of the batch, as `group.part(batch)` says.
            baseline: the linear part fitted without these fields; by default the model's own.
            batch: fields of all ranks together; by default those given.
        Raises:
            TrainingDiverged: If the loss or its gradient is not finite; the weights are as before
                the step.
        """
        start = time.monotonic()
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = self._learning_rate()
        self.model.zero_grad(set_to_none=True)
        loss = self._descend(x_0, condition, baseline or self.model.baseline, batch or len(x_0))
        self._refuse("loss", loss)
        gradient = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._refuse("norm of the gradient", gradient)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._follow()
        value = float(loss)
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self._count(time.monotonic() - start, x_0.device)

    def agree(self) -> None:
        """See that all ranks of the group are at the same step.

        Raises:
            RuntimeError: If they are not; they began from different states.
        """
        device = next(self.model.parameters()).device
        steps = torch.zeros(self.group.size, dtype=torch.float64, device=device)
        steps[self.group.rank] = self.step
        self.group.sum([steps])
        if any(steps != self.step):
            raise RuntimeError(f"the ranks begin at different steps: {steps.tolist()}")

    def _refuse(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingDiverged(
                f"the {name} is {float(value)} at step {self.step}; lower "
                "train.learning_rate, or look for fields far outside the training period's range"
            )

    def validate(
        self,
        x_0: Tensor,
        condition: Given,
        draws: int = 4,
        witnesses: Witnesses | None = None,
    ) -> dict[str, float]:
        """Certify the averaged weights on validation fields and keep them if they are the best.

        Args:
            witnesses: what the standard error takes for independent; by default the fields are of
                times one after the other.
        """
        start = time.monotonic()
        generator = torch.Generator().manual_seed(self.config.seed)
        result = certify(self.average, x_0, condition, self.times, generator, draws=draws)
        if all(result.nats > entry["nats"] for entry in self.history):
            self.best = weights(self.average)
        self._count(time.monotonic() - start, x_0.device)
        among = witnesses or Witnesses(of=np.arange(len(x_0)))
        entry = {
            "step": self.step,
            "loss": self.loss,
            "nats": result.nats,
            "error": among.interval(
                result.per_field, features_of(condition)[:, 0].cpu().numpy()
            ).standard_error,
        }
        self.history.append(entry)
        return entry

    def calibrate(self, x_0: Tensor, condition: Given) -> Calibration:
        """Calibrate the best weights on validation fields, at every node with every field."""
        load(self.average, self.best)
        baseline, shortest = self.average.baseline, self.config.shortest_time
        calibration = Calibration(baseline, shortest, self.process.horizon).to(x_0.device)
        generator = torch.Generator().manual_seed(self.config.seed)
        batch = at_once(x_0)
        for node, log_time in enumerate(calibration.nodes):
            time = torch.exp(log_time.double())
            parts = [
                calibration.sums(*self._weighted(x_0[rows], condition[rows], time, generator))
                for rows in (slice(i, i + batch) for i in range(0, len(x_0), batch))
            ]
            calibration.solve(node, torch.stack(parts).sum(dim=0))
        return calibration

    @torch.no_grad()
    def _weighted(
        self, x_0: Tensor, condition: Given, time: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The network's F, its input and the F it should predict of fields noised to one time,
        each times the square root of its weight in J_G."""
        model = self.average
        t = time.expand(len(x_0))
        posterior = Posterior(t, model.baseline.variance)
        y_0, noise = model.baseline.rotate(x_0), torch.randn(x_0.shape, generator=generator)
        y_t = (posterior.alpha * y_0 + posterior.sigma * noise.to(x_0.device)).float()
        learned = model.standardised(posterior, t, y_t, condition)
        root = posterior.c_in * model.baseline.variance.sqrt()
        return root * learned, root * posterior.c_in * y_t, root * posterior.target(y_0, y_t)

    def _descend(self, x_0: Tensor, condition: Given, baseline: Baseline, batch: int) -> Tensor:
        """The gradient of the mean loss of a batch, in the model; returns that loss.

        Times and noise are drawn for the whole batch by every rank, which takes its part of them:
        so the draws of a field depend neither on ranks nor on how its batch is taken apart.
        """
        generator = torch.Generator().manual_seed(self._seed_of_step())
        part = self.group.part(batch)
        t = self._times(batch, generator)[part].to(x_0.device)
        condition = self._withhold(condition, generator, batch)
        noise = torch.randn((batch, *x_0.shape[1:]), generator=generator)[part].to(x_0.device)
        parameters = list(self.model.parameters())

        def descended(rows: slice) -> list[Tensor]:
            """Gradients of these fields, and the loss; weighted as parts of the batch."""
            drawn = (x_0[rows], condition[rows], t[rows], noise[rows])
            loss = self._loss(*drawn, baseline, part.start + rows.start) * (len(t[rows]) / batch)
            return [*torch.autograd.grad(loss, parameters), loss.detach()]

        sums = [torch.zeros_like(p) for p in (*parameters, x_0.new_zeros(()))]
        for rows in divided(len(x_0), min(self.config.accumulate, len(x_0))):
            for found in self.threads.map(descended, self.threads.parts(rows)):
                for total, own in zip(sums, found, strict=True):
                    total += own
        self.group.sum(sums)
        for parameter, gradient in zip(parameters, sums, strict=False):
            parameter.grad = gradient
        return sums[-1]

    def _loss(
        self,
        x_0: Tensor,
        condition: Given,
        t: Tensor,
        noise: Tensor,
        baseline: Baseline,
        place: int,
    ) -> Tensor:
        """The mean loss of fields that begin at `place` of their batch."""
        posterior = Posterior(t, baseline.variance)
        y_0 = baseline.rotate(x_0)
        y_t = (posterior.alpha * y_0 + posterior.sigma * noise).float()
        with torch.random.fork_rng([x_0.device] if x_0.is_cuda else []):
            torch.manual_seed(self._seed_of_step() + place)
            learned = self.model.standardised(posterior, t, y_t, condition, baseline)
        weight = baseline.variance / posterior.variance
        weight = weight / weight.mean(dim=(1, 2), keepdim=True)
        return (weight * (learned - posterior.target(y_0, y_t)).square()).mean()

    def _count(self, seconds: float, device: torch.device) -> None:
        """Add the seconds of rank 0: what depends on time has to be the same on all ranks."""
        spent = torch.tensor(
            [seconds if self.group.rank == 0 else 0.0], dtype=torch.float64, device=device
        )
        self.group.sum([spent])
        self.seconds += float(spent)

    def _seed_of_step(self) -> int:
        after = [len(self.rollbacks)] if self.rollbacks else []
        words = np.random.SeedSequence([self.config.seed, self.step, *after]).generate_state(1)
        return int(words[0])

    def _times(self, batch: int, generator: torch.Generator) -> Tensor:
        """Diffusion times, log-normal, one from each of `batch` equally likely strata."""
        place = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        normal = torch.special.ndtri(place.double())
        times = self.config.typical_time * torch.exp(self.config.time_spread * normal)
        return times.clamp(self.config.shortest_time, self.process.horizon)

    def _withhold(
        self, condition: Given, generator: torch.Generator, batch: int | None = None
    ) -> Given:
        """The condition without all covariates of some fields and without some of others."""
        if isinstance(condition, Condition):
            features = self._withheld(condition.features, generator, batch)
            return Condition(features=features, past=condition.past)
        return self._withheld(condition, generator, batch)

    def _withheld(
        self, condition: Tensor, generator: torch.Generator, batch: int | None = None
    ) -> Tensor:
        if condition.shape[1] == 1:
            return condition
        batch = batch or len(condition)
        draw = torch.rand((batch, condition.shape[1]), generator=generator)
        draw = draw[self.group.part(batch)].to(condition.device)
        withheld = draw < self.config.forgotten
        withheld[:, 1:] |= withheld[:, :1]
        withheld[:, 0] = False
        return condition.masked_fill(withheld, math.nan)

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup)
        fall = (1 - self.progress) / (1 - self.config.decay_from)
        rate = self.config.learning_rate * 0.5 ** len(self.rollbacks)
        return rate * warm * max(0.01, min(1.0, fall))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(0.998, (self.step + 1) / (self.step + 10))
        for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            ours.lerp_(theirs, 1 - keep)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Every number of the state, by name."""
        named: dict[str, dict[str, Tensor]] = {
            "model": weights(self.model),
            "average": weights(self.average),
            "best": self.best,
        }
        for name, parameter, optimizer in self._optimised():
            for key, value in optimizer.state[parameter].items():
                named.setdefault(f"optimizer.{key}", {})[name] = torch.as_tensor(value)
        return {
            f"{group}/{name}": tensor.detach().cpu().numpy()
            for group, tensors in named.items()
            for name, tensor in tensors.items()
        }

    def to_meta(self) -> dict[str, Any]:
        """What else the state is made of but the time it took, ready for JSON."""
        return {"loss": self.loss, "history": self.history, "rollbacks": self.rollbacks}

    def restore(
        self, step: int, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> None:
        """Go on from a state given by `to_tensors` and `to_meta`."""
        groups: dict[str, dict[str, Tensor]] = {}
        for name, array in tensors.items():
            group, _, key = name.partition("/")
            groups.setdefault(group, {})[key] = torch.from_numpy(np.array(array))
        load(self.model, groups["model"])
        load(self.average, groups["average"])
        self.best = groups["best"]
        moments = {g.removeprefix("optimizer."): v for g, v in groups.items() if "optimizer." in g}
        for name, parameter, optimizer in self._optimised():
            optimizer.state[parameter] = {
                key: values[name].to(parameter.device if values[name].ndim else "cpu")
                for key, values in moments.items()
                if name in values
            }
        self.step = step
        self.loss, self.history = float(meta["loss"]), list(meta["history"])
        self.rollbacks = list(meta["rollbacks"])

    def roll_back(
        self, step: int, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], reason: str
    ) -> None:
        """Go back to a state of before, as `restore`, and on from there in another way."""
        entry = {"step": self.step, "to": step, "reason": reason}
        rollbacks = [*self.rollbacks, entry]
        self.restore(step, tensors, meta)
        self.rollbacks = rollbacks

    def begin_from(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Begin with the best weights of another training of the same network, and nothing else.

        Raises:
            ValueError: If names or shapes are not those of this network.
        """
        best = {
            name.removeprefix("best/"): torch.from_numpy(np.array(array))
            for name, array in tensors.items()
            if name.startswith("best/")
        }
        load(self.model, best)
        load(self.average, best)
        self.best = weights(self.average)

    def _optimised(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        """Every parameter with its name and the optimizer that moves it."""
        owner = {
            id(parameter): optimizer
            for optimizer in self.optimizers
            for parameter in optimizer.param_groups[0]["params"]
        }
        for name, parameter in self.model.named_parameters():
            yield name, parameter, owner[id(parameter)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the learned parameters, by name; tables that follow from the data are left out."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set the learned parameters to `values`.

    Raises:
        ValueError: If names or shapes are not those of this model.
    """
    parameters = dict(model.named_parameters())
    wrong = [
        name
        for name in parameters.keys() | values.keys()
        if name not in parameters
        or name not in values
        or parameters[name].shape != values[name].shape
    ]
    if wrong:
        raise ValueError(
            f"the weights belong to another network: {', '.join(sorted(wrong)[:3])} differ"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
