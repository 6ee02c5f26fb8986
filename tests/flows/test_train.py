"""The training stage: where its fields come from does not matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import train
from flows.config import RunConfig
from flows.stage import Progress
from storage import artifacts
from storage.layout import StoreLayout
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
    inside, conditions = train.training_series(layout, config.split.train)
    monkeypatch.setattr(train, "SERIES_SHARE", 0.0)
    outside, same = train.training_series(layout, config.split.train)
    assert isinstance(inside, np.ndarray) and not isinstance(outside, np.ndarray)
    np.testing.assert_array_equal(conditions, same)
    drawn: list[Any] = []
    for series in (inside, outside):
        normals = artifacts.open_published(layout, "normals").load()
        baseline = train.untrained(config, normals, train.torch.float32).baseline
        stretches = train._stretches(config, series, conditions, baseline, normals)
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
    monkeypatch.setattr(train, "SERIES_SHARE", 0.0)
    for path in layout.artifacts.glob("checkpoints-*"):
        path.rename(path.with_name(f"old-{path.name}"))
    layout.name("checkpoints").unlink()
    assert train.run(config, layout, None, quiet).digest == first.digest
