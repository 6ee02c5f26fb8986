"""The training stage: where its fields come from does not matter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.train import fields, session, train
from flows.stages.train.judging import Judging
from pipeline.network.data_parallel import Group
from pipeline.network.train import Training, TrainingDiverged
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout, records_of
from storage.training import checkpoints
from tests.small import run_stages, small_table


@pytest.fixture
def preprocessed(tmp_path: Path) -> tuple[RunConfig, StoreLayout]:
    """A run of noise on the days of three years, up to its preprocessing."""
    table = small_table(tmp_path)
    run_stages(table, "ingest", "preprocess")
    config = RunConfig.from_dict(table)
    return config, StoreLayout(config.run.root)


def test_a_series_that_does_not_fit_into_memory_is_read_batch_by_batch(
    preprocessed: tuple[RunConfig, StoreLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, layout = preprocessed
    inside, conditions = fields.training_series(layout, config.split)
    monkeypatch.setattr(fields, "SERIES_SHARE", 0.0)
    outside, same = fields.training_series(layout, config.split)
    assert isinstance(inside, np.ndarray) and not isinstance(outside, np.ndarray)
    np.testing.assert_array_equal(conditions, same)
    drawn: list[Any] = []
    for series in (inside, outside):
        normals = artifacts.open_published(layout, "normals").load()
        baseline = session.untrained(config, normals, session.torch.float32).baseline
        rows = fields.climatology_terms(layout, config.split, normals)
        stretches = fields.stretches_of(config, series, conditions, rows, baseline, normals)
        drawn.append([batches.batch_at(step) for batches, _ in stretches for step in (0, 1, 7)])
        drawn.append([[law.variance.numpy()] for _, law in stretches])
    for one, other in ((drawn[0], drawn[2]), (drawn[1], drawn[3])):
        for parts, again in zip(one, other, strict=True):
            for part, equal in zip(parts, again, strict=True):
                np.testing.assert_array_equal(part, equal)


def test_the_weights_do_not_depend_on_where_the_fields_are(
    preprocessed: tuple[RunConfig, StoreLayout],
    monkeypatch: pytest.MonkeyPatch,
    quiet: Progress,
) -> None:
    config, layout = preprocessed
    first = train.run(config, layout, None, quiet)
    monkeypatch.setattr(fields, "SERIES_SHARE", 0.0)
    for path in layout.artifacts.glob("checkpoints-*"):
        path.rename(path.with_name(f"old-{path.name}"))
    layout.name("checkpoints").unlink()
    assert train.run(config, layout, None, quiet).digest == first.digest


def test_each_stretch_is_trained_with_a_law_of_the_block_degree(tmp_path: Path) -> None:
    table = small_table(tmp_path)
    table["spectral"] = {**table["spectral"], "block_degree": 2}
    run_stages(table, "ingest", "preprocess")
    config = RunConfig.from_dict(table)
    normals = artifacts.open_published(config.layout, "normals").load()
    baseline = session.untrained(config, normals, session.torch.float32).baseline
    x, conditions = fields.training_series(config.layout, config.split)
    rows = fields.climatology_terms(config.layout, config.split, normals)
    stretches = fields.stretches_of(config, x, conditions, rows, baseline, normals)
    sizes = [{name: a.shape for name, a in law.to_arrays().items()} for _, law in stretches]
    own = {name: array.shape for name, array in baseline.to_arrays().items()}
    assert sizes == [own] * fields.FOLDS and len(own) == 3
    assert own["beyond"][0] == config.spectral.lmax - 2


def test_a_training_that_its_minutes_end_is_judged_by_the_steps_that_its_first_validation_foretells(
    preprocessed: tuple[RunConfig, StoreLayout],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a restart, which has its history, is judged by as many fields as before."""
    config, layout = preprocessed
    timed = replace(config, train=replace(config.train, steps=None, minutes=60.0, batch=8))
    normals = artifacts.open_published(layout, "normals").load()
    monkeypatch.setattr("flows.stages.train.judging.FEWEST", 4)
    directory = layout.artifact("checkpoints", "a" * 64)
    found = session.Session(timed, layout, directory, normals, None, Group())
    held_out = len(found.held_out.x)
    for steps in (2, 3):
        found.training.step = steps
        numbers = found.held_out.x[0].numel()
        assert found.judging == Judging.of(
            steps=12 * steps, batch=8, validations=12, fields=held_out, numbers=numbers
        )
    found.training.history.append({"step": 2, "nats": 0.0})
    found.training.step = 1000
    assert found.judging.validated == 4 < held_out
    few = found.held_out.spread(4)
    assert len(few.x) == len(few.condition) == len(few.witnesses.of) == 4
    np.testing.assert_array_equal(few.x[-1], found.held_out.x[-1])


def silent(done: int, total: int, text: str) -> None:
    pass


class Stopped(Exception):
    """Stands for a kill."""


def trained_with(
    config: RunConfig,
    layout: StoreLayout,
    monkeypatch: pytest.MonkeyPatch,
    divergences: int,
    stops: tuple[int, ...] = (),
) -> artifacts.Published:
    """A training of thirty steps whose 17th has no finite gradient for the first few times.

    It is stopped before each of `stops` (in calls of `advance`) and taken up again.
    """
    real, calls = Training.advance, [0]

    def advance(self: Training, *arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] in stops:
            raise Stopped
        if self.step == 17 and len(self.rollbacks) < divergences:
            raise TrainingDiverged("the loss is nan at step 17")
        real(self, *arguments, **options)

    monkeypatch.setattr(Training, "advance", advance)
    monkeypatch.setattr(session, "SECONDS_BETWEEN_STATES", 0.0)
    for _ in stops:
        with pytest.raises(Stopped):
            train.run(config, layout, None, silent)
    train.run(config, layout, None, silent)
    found = artifacts.published(layout, "checkpoints")
    assert found is not None
    return found


def test_a_divergence_goes_back_to_the_last_validation_stopped_or_not(
    preprocessed: tuple[RunConfig, StoreLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, layout = preprocessed
    steps = replace(config.train, steps=30, width=8, blocks=1, batch=8)
    config = replace(config, train=steps)
    found = []
    for stops in ((), (5, 16, 18, 19, 25), (19,)):
        found.append(trained_with(config, layout, monkeypatch, 2, stops))
        for path in (found[-1].path, records_of(found[-1].path)):
            path.rename(path.with_name(f"{path.name}.{len(found)}"))
        layout.name("checkpoints").unlink()
        monkeypatch.undo()
    undisturbed, *stopped = found
    assert [(one["step"], one["to"]) for one in undisturbed.attrs["rollbacks"]] == [(17, 15)] * 2
    for one in stopped:
        assert one.digest == undisturbed.digest
        assert one.attrs["rollbacks"] == undisturbed.attrs["rollbacks"]
    other = trained_with(config, layout, monkeypatch, 0)
    assert other.attrs["rollbacks"] == []
    assert other.digest != undisturbed.digest


def test_a_training_that_diverges_again_and_again_is_given_up(
    preprocessed: tuple[RunConfig, StoreLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, layout = preprocessed
    config = replace(config, train=replace(config.train, steps=30, width=8, blocks=1, batch=8))
    with pytest.raises(TrainingDiverged, match=r"17\. It went back 3 times, from step 17 to 15"):
        trained_with(config, layout, monkeypatch, 9)


def test_a_warm_start_that_diverges_before_its_first_validation_stays_a_warm_one(
    preprocessed: tuple[RunConfig, StoreLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, layout = preprocessed
    short = replace(config.train, steps=30, width=8, blocks=1, batch=8)
    train.run(replace(config, train=short), layout, None, silent)
    parent = artifacts.published(layout, "checkpoints")
    assert parent is not None
    last = checkpoints.load_latest(parent.path)
    assert last is not None
    known = {n[5:]: v for n, v in last.tensors.items() if n.startswith("best/")}
    real, begun = Training.advance, list[bool]()

    def advance(self: Training, *arguments: Any, **options: Any) -> None:
        if self.step == 0:
            ours = self.to_tensors()
            begun.append(all(np.array_equal(ours[f"model/{n}"], v) for n, v in known.items()))
        if self.step == 2 and not self.rollbacks:
            raise TrainingDiverged("the loss is nan at step 2")
        real(self, *arguments, **options)

    monkeypatch.setattr(Training, "advance", advance)
    warm = replace(short, start="last", learning_rate=short.learning_rate / 2)
    train.run(replace(config, train=warm), layout, None, silent)
    found = artifacts.published(layout, "checkpoints")
    assert found is not None and found.attrs["started_from"] == parent.digest
    assert [(one["step"], one["to"]) for one in found.attrs["rollbacks"]] == [(2, 0)]
    assert begun == [True, True]
