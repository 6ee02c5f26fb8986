"""A training of the network, from its newest state on, to the tables of a finished model.

States are saved at validations and every minute. A training that diverges goes back to its last
validation, at most three times: which state that is depends on steps alone, not on when states were
saved, so a resumed training goes back to where an undisturbed one does.
"""

import logging
import time as clock
from typing import Any

import torch
import xarray as xr
from numpy.typing import NDArray

from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.train.fields import HeldOut, climatology_terms, stretches_of, training_series
from flows.stages.train.judging import (
    FEWEST,
    MATCHED,
    MATCHING_STEPS,
    Judging,
    spread_over,
)
from flows.stages.train.pasts import Pasts, sequence_stretches
from flows.stages.trained_model import certified_sampler, device_of, taken, untrained
from pipeline.arrays import FloatArray
from pipeline.diffusion.matching import match
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Given
from pipeline.diffusion.sequences import ClosedLoop, hold
from pipeline.network.data_parallel import Group
from pipeline.network.score_network import native_precision
from pipeline.network.train import Training, TrainingConfig, TrainingDiverged
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.places.places import Place
from storage.training import checkpoints

LOGGER = logging.getLogger("spherescore")
SECONDS_BETWEEN_STATES = 60.0
ROLLBACKS = 3  # returns to the last validation, after which a training is given up


class Session:
    """One rank of a training, at its newest state.

    Args:
        directory: of the states.
        parent: a published training that this one goes on from, if it does.
        group: the ranks that train together.
    """

    def __init__(
        self,
        config: RunConfig,
        layout: StoreLayout,
        directory: Place,
        normals: xr.Dataset,
        parent: artifacts.Published | None,
        group: Group,
    ) -> None:
        self.config, self.directory, self.normals = config, directory, normals
        self.parent, self.group, self.device = parent, group, device_of(config)
        self.saved, self.good = clock.monotonic(), 0  # the step to go back to
        self.told_judging = False
        self._begin()
        courses = config.learns_sequences
        rows = climatology_terms(layout, config.split, normals, courses=courses)
        self.pasts: Pasts | None = None
        self.closed_loop: ClosedLoop | None = None
        if config.learns_sequences:
            self._read_pasts(layout, rows)
        else:
            self._read_days(layout, rows)

    def _read_days(self, layout: StoreLayout, rows: FloatArray) -> None:
        config, baseline = self.config, self.training.model.baseline
        x, conditions = training_series(layout, config.split)
        self.stretches = stretches_of(config, x, conditions, rows, baseline, self.normals)
        self.held_out = HeldOut.of(layout, config.split, self.device)
        spread = spread_over(MATCHED, len(conditions))
        self.spread: Given = torch.from_numpy(conditions)[spread].to(self.device)

    def _read_pasts(self, layout: StoreLayout, rows: FloatArray) -> None:
        split = self.config.split
        self.pasts = pasts = Pasts.of(layout, split, "train", self.normals)
        self.stretches = sequence_stretches(self.config, pasts, rows, self.normals, self.device)
        validation = Pasts.of(layout, split, "validation", self.normals)
        self.held_out = validation.held_out(self.device)
        self.spread = pasts.spread(MATCHED, self.device)

    @property
    def judging(self) -> Judging:
        """How many fields the training is judged by, the same after a restart.

        A training that its minutes end has as many steps as its first validation foretells.
        """
        training, config = self.training, self.training.config
        steps = config.steps
        if config.minutes is not None:
            first = training.history[0]["step"] if training.history else training.step
            foretold = int(first) * config.validations
            steps = foretold if steps is None else min(steps, foretold)
        found = Judging.of(
            steps=steps,
            batch=self.config.train.batch,
            validations=config.validations,
            fields=len(self.held_out.x),
            numbers=self.held_out.x[0].numel(),
        )
        if not self.told_judging:
            self.told_judging = True
            LOGGER.info(
                "train: of %d validation fields %d are used at each validation and %d for the "
                "calibration, %d fields match the flow; with some %d steps that is at most a fifth "
                "of what the steps take, or %d fields each",
                *(len(self.held_out.x), found.validated, found.calibrated, found.matched),
                *(steps, FEWEST),
            )
        return found

    @property
    def finished(self) -> bool:
        return self.training.progress >= 1

    def advance(self) -> None:
        """One step, and what it is time for: a validation, a state on disk; or a step back.

        Raises:
            TrainingDiverged: If it has gone back `ROLLBACKS` times.
        """
        training = self.training
        turn, number = divmod(training.step, len(self.stretches))
        batches, baseline = self.stretches[number]
        drawn = batches.batch_at(turn, self.group.part(batches.batch))
        x, condition = taken(*drawn, self.device)
        try:
            training.advance(x, condition, baseline, batch=batches.batch)
        except TrainingDiverged as error:
            self._roll_back(error)
            return
        if validated := training.validation_due:
            held_out = self.held_out.spread(self.judging.validated)
            training.validate(held_out.x, held_out.condition, witnesses=held_out.witnesses)
            self.good = training.step
        if validated or clock.monotonic() - self.saved > SECONDS_BETWEEN_STATES:
            self._save()

    def finish(self, progress: Progress) -> dict[str, Any]:
        """Save the last state, with the tables that make its best weights a model.

        Returns:
            Attributes of the published training.
        """
        training = self.training
        # The finished state does not tell how long it took: equal trainings have equal digests.
        state = training.to_tensors() | self._tables(progress)
        meta = {**training.to_meta(), "precision": self.precision}
        checkpoints.save(self.directory, training.step, state, meta)
        best = max(training.history, key=lambda entry: entry["nats"])
        return {
            "figures": {
                "steps": training.step,
                "parameters": sum(p.numel() for p in training.model.parameters()),
                "J_G validation": f"{best['nats']:.1f} ± {best['error']:.1f}",
                **self._held(),
            },
            "history": training.history,
            "rollbacks": training.rollbacks,
            "seconds": training.seconds,
        }

    def _held(self) -> dict[str, str]:
        """In words, the variance that sequences had, and have, of that of the linear law's."""
        if self.closed_loop is None:
            return {}
        return {"variance of sequences": self.closed_loop.in_words()}

    def told(self) -> tuple[int, int, str]:
        """Progress in steps, with how many there will be at this speed."""
        training = self.training
        total = max(training.step, round(training.step / max(training.progress, 1e-9)))
        words = f"loss {training.loss:.4f}"
        if training.history:
            last = training.history[-1]
            words += f", J_G {last['nats']:.0f} ± {last['error']:.0f} nats"
        return training.step, total, words

    def _begin(self) -> None:
        state = checkpoints.load_latest(self.directory)
        self.precision = str(native_precision(self.device)).removeprefix("torch.")
        if state is not None:
            self.precision = state.meta["precision"]
        self.training = training = self._beginning()
        if state is not None:
            self.good = state.meta.get("good", 0)  # the last state of all does not tell
            training.restore(state.step, state.tensors, state.meta)
            spent = 60 * (self.config.train.minutes or 0)
            training.seconds = float(state.meta.get("seconds", spent))
            LOGGER.info("train: goes on after step %d", state.step)
        elif self.parent is not None:
            LOGGER.info("train: begins with the weights of %s", self.parent.path.name)
        training.agree()

    def _beginning(self) -> Training:
        """The training before its first step, with the weights of the one it goes on from."""
        config = self.config
        model = untrained(config, self.normals, getattr(torch, self.precision))
        training = Training(
            model=model.to(self.device),
            config=TrainingConfig(
                steps=config.train.steps,
                minutes=config.train.minutes,
                learning_rate=config.train.learning_rate,
                accumulate=config.train.accumulate,
                seed=config.run.seed,
            ),
            process=OrnsteinUhlenbeck(),
            times=certified_sampler(config).times,
            group=self.group,
        )
        if self.parent is not None:
            training.begin_from(_weights_of(self.parent))
        return training

    def _save(self) -> None:
        training = self.training
        if self.group.rank > 0 or self.finished:
            return
        meta = {
            **training.to_meta(),
            "precision": self.precision,
            "seconds": training.seconds,
            "good": self.good,
        }
        state = training.to_tensors()
        checkpoints.save(self.directory, training.step, state, meta, also=self.good)
        self.saved = clock.monotonic()

    def _roll_back(self, error: TrainingDiverged) -> None:
        training = self.training
        if len(training.rollbacks) == ROLLBACKS:
            places = ", ".join(f"{one['step']} to {one['to']}" for one in training.rollbacks)
            raise TrainingDiverged(f"{error}. It went back {ROLLBACKS} times, from step {places}")
        if self.good == 0:
            first = self._beginning()
            state = checkpoints.State(0, first.to_tensors(), first.to_meta())
        else:
            state = checkpoints.load_step(self.directory, self.good)
        words = "train: %s; the training goes back to step %d with half the learning rate"
        LOGGER.warning(words, error, self.good)
        training.roll_back(state.step, state.tensors, state.meta, str(error))
        # They would lead to the same divergence again.
        if self.group.rank == 0:
            checkpoints.drop_newer(self.directory, state.step)

    def _tables(self, progress: Progress) -> dict[str, NDArray[Any]]:
        """Calibrate the best weights and match their flow."""
        training, judging = self.training, self.judging
        held_out = self.held_out.spread(judging.calibrated)
        progress(training.step, training.step, "calibrates the best weights")
        calibration = training.calibrate(held_out.x, held_out.condition)
        score, process = training.average, training.process
        score.calibration = calibration
        noise = torch.Generator().manual_seed(training.config.seed)
        progress(training.step, training.step, "matches the flow to its spectra")
        few = min(judging.matched, len(self.spread))
        along = self.spread[spread_over(few, len(self.spread))]
        matched = match(score, along, process.power_grid(MATCHING_STEPS), noise)
        tables = {f"calibration/{name}": table for name, table in calibration.state_dict().items()}
        tables |= {"matching/nodes": matched.nodes, "matching/rates": matched.rates}
        if self.pasts is not None:
            progress(training.step, training.step, "holds the variance of sequences")
            begun, features = self.pasts.begun(self.device)
            factor, self.closed_loop = hold(self.pasts.law, matched, begun, features, noise)
            tables["holding/factor"] = torch.from_numpy(factor)
        return {name: table.cpu().numpy() for name, table in tables.items()}


def _weights_of(parent: artifacts.Published) -> dict[str, NDArray[Any]]:
    last = checkpoints.load_latest(parent.path)
    if last is None:
        raise artifacts.CorruptArtifact(
            f"{parent.path} holds no state that verifies, and this training goes on from it; "
            'run `spherescore check`, or set train.start = "scratch"'
        )
    return last.tensors
