"""The model of costs: laws of its counts and times."""

import inspect
import itertools
import tracemalloc
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from flows.config.schema import RunConfig
from flows.plan import sizes, workload
from flows.plan import work as counts
from flows.plan.costs import estimates
from flows.plan.plan import duration
from flows.plan.work import Prices, Work, foretold, seconds, work
from flows.plan.workload import Machines, Workload
from flows.stages.base import STAGES
from flows.stages.preprocess import fitting, preprocess
from flows.stages.train import fields, judging
from flows.stages.verify import candidates, certificate, compared, nearest
from pipeline.certificate import path_bound
from pipeline.diffusion.score import Posterior
from pipeline.gaussian import whole
from pipeline.gaussian.fit import Moments, fit_isotropic
from pipeline.gaussian.whole import WholeLaw
from pipeline.network import calibration
from pipeline.network.score_network import score_network
from pipeline.network.train import Training, TrainingConfig
from pipeline.scores import analogues, arena, by_degree, proper_scores
from pipeline.sphere.grid import RingGrid
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

NAMES = [stage.name for stage in STAGES]
LOAD = Workload(
    times=1000,
    fitted=800,
    channels=3,
    nlat=32,
    points=2048,
    lmax=31,
    ensemble=(16, 2),
    verification=(4, 8),
    validated=200,
    tested=200,
    steps=100,
)
UNIT = Prices(
    legendre=1e-9,
    network=1e-11,
    training=5e-12,
    task=1e-3,
    stages={name: {"value": 1e-8, "unit": 1e-2, "alone": 1e-10, "run": 3.0} for name in NAMES},
    where="nowhere",
)


def time_of(stage: str, load: Workload, price: Prices = UNIT, **machines: Any) -> float:
    return seconds(stage, work(load)[stage], load, Machines(**machines), price)


@pytest.mark.parametrize("stage", NAMES)
@pytest.mark.parametrize(
    "change", [{"channels": 6}, {"lmax": 63, "nlat": 64, "points": 8192}, {"times": 4000}]
)
def test_more_work_never_takes_less(stage: str, change: dict[str, int]) -> None:
    assert time_of(stage, replace(LOAD, **change)) >= time_of(stage, LOAD)


def test_a_price_list_without_prices_gives_no_time() -> None:
    free = {name: dict.fromkeys(("value", "unit", "alone", "run"), 0.0) for name in NAMES}
    nothing = Prices(legendre=0, network=0, training=0, task=0, stages=free, where="")
    assert all(time_of(stage, LOAD, nothing) == 0 for stage in NAMES)


def test_workers_divide_what_is_shared_and_not_what_is_spent_once() -> None:
    one, two = (time_of("ingest", LOAD, workers=number) for number in (1, 2))
    assert one - 3.0 == pytest.approx(2 * (two - 3.0))


def test_units_wait_for_a_slow_scheduler() -> None:
    slow = replace(UNIT, task=100.0)
    assert time_of("ingest", LOAD, slow, workers=1000) == 3.0 + 100.0 * ceil(1000 / LOAD.shard)


def test_training_ends_by_its_minutes_but_for_the_matching() -> None:
    timed, twice = (replace(LOAD, steps=None, minutes=minutes) for minutes in (10.0, 20.0))
    done = work(timed)["train"]
    assert done.judging >= judging.MATCHED * judging.MATCHING * LOAD.network_products
    rest = done.judging * UNIT.training + done.alone * 1e-10 + done.products * UNIT.legendre
    assert time_of("train", timed) == pytest.approx(603.0 + rest)
    assert time_of("train", twice) == pytest.approx(1203.0 + rest)
    early = replace(LOAD, minutes=1e6)
    assert time_of("train", early) == pytest.approx(time_of("train", LOAD))


def test_a_short_training_of_large_fields_is_judged_as_its_steps_allow() -> None:
    """Minutes are steps at the price of a step, of which judging takes its share."""
    large = replace(LOAD, steps=None, minutes=10.0, validated=400)
    steps = foretold(large, Machines(), UNIT)
    assert steps is not None
    alone = judging.STEP * LOAD.batch * LOAD.network_products * UNIT.training
    assert steps * alone == pytest.approx((1.0 - judging.SHARE) * 600.0, abs=alone)
    (known,) = (e for e in estimates(large, Machines(), UNIT) if e.stage == "train")
    told = replace(large, foretold=steps)
    assert known.seconds == pytest.approx(time_of("train", told))
    assert workload.judging_of(told).calibrated < workload.judging_of(large).calibrated == 400
    assert foretold(LOAD, Machines(), UNIT) is None


def test_a_gaussian_model_trains_and_judges_nothing() -> None:
    gaussian = replace(LOAD, steps=0, evaluations=0, validated=100, tested=100)
    assert work(gaussian)["train"] == Work()
    (known,) = (e for e in estimates(gaussian, Machines(), None) if e.stage == "train")
    assert known.bytes == 0 and known.memory_here < 2 * sizes.INTERPRETER_BYTES
    assert work(gaussian)["verify"].network == 0


def test_the_evaluations_that_are_counted_are_those_that_are_made() -> None:
    assert TrainingConfig(steps=1).validations == workload.VALIDATIONS
    assert calibration.NODES == judging.NODES
    assert (len(candidates.WINDOW), analogues.MOST) == (workload.WINDOW, workload.OTHER_YEARS)
    assert (fields.FOLDS, nearest.NEAREST) == (counts.FOLDS, counts.NEAREST)
    assert proper_scores.ROWS == sizes.ROWS
    assert (whole.FIELDS, whole.LARGEST_BYTES) == (sizes.WHOLE_FIELDS, sizes.WHOLE_BYTES)
    assert certificate.EVALUATIONS == counts.CERTIFIED
    likelihood = 4 * certificate.FLOW_STEPS * certificate.FIELDS * 3  # one forward, two backward
    assert likelihood + 256 * certificate.FIELDS // certificate.APART == counts.PROBED
    drawn = inspect.signature(Training.validate).parameters["draws"].default
    assert drawn == judging.DRAWS


@pytest.mark.parametrize("fields", [40, 365, 14_600])
@pytest.mark.parametrize(("steps", "batch"), [(500, 32), (4_000, 8), (100_000, 256)])
def test_judging_takes_a_fifth_of_a_training_or_what_the_fewest_fields_take(
    steps: int, batch: int, fields: int
) -> None:
    asked = {"steps": steps, "batch": batch, "fields": fields, "numbers": 5_120}
    asked["validations"] = workload.VALIDATIONS
    found, taken = judging.Judging.of(**asked), 3 * steps * batch
    few = judging.Judging(validated=32, calibrated=32, matched=32).evaluations(workload.VALIDATIONS)
    assert found.evaluations(workload.VALIDATIONS) <= max(0.2 * taken, few) * 1.01
    assert found.validated >= min(32, fields) and found.matched >= 32
    if 0.2 * taken > 2 * judging.Judging.of(**asked | {"steps": None}).evaluations(12):
        assert (found.validated, found.calibrated, found.matched) == (fields, fields, 128)


def test_a_small_run_is_judged_by_all_its_fields_or_by_the_fewest() -> None:
    small = {"batch": 32, "validations": 12, "numbers": 5_120}
    few = judging.Judging.of(steps=6, fields=365, **small)
    assert (few.validated, few.calibrated, few.matched) == (32, 32, 32)
    assert judging.Judging.of(steps=6, fields=20, **small).validated == 20
    assert judging.Judging.of(steps=None, fields=365, **small).validated == 365


def test_what_is_judged_at_once_is_few_where_fields_are_large() -> None:
    """A quarter of a degree with twenty variables has ten million coefficients a field."""
    large = {"batch": 64, "validations": 12, "fields": 365, "numbers": 20 * 720**2}
    assert judging.Judging.of(steps=None, **large).matched == 12
    assert path_bound.at_once(torch.empty(5, 20, 720**2)) == 3
    assert path_bound.at_once(torch.empty(5, 5, 32**2)) == 64
    assert (path_bound.MOST, path_bound.NUMBERS) == (sizes.JUDGED_FIELDS, sizes.JUDGED_NUMBERS)


def test_gpus_divide_the_network_alone() -> None:
    machines = {"gpus": 4, "gpu_speed": 1e15}
    drawn = LOAD.drawn * LOAD.evaluations * LOAD.network_products
    assert time_of("generate", LOAD, **machines) == pytest.approx(
        time_of("generate", replace(LOAD, evaluations=0)) + drawn / 4e15
    )


def test_ranks_of_one_thread_each_divide_the_steps_of_a_training_and_judge_for_themselves() -> None:
    done = work(LOAD)["train"]
    rest = 3.0 + done.alone * 1e-10 + done.products * UNIT.legendre
    for ranks in (2, 8):
        expected = (done.training / ranks + done.judging) * UNIT.network
        assert time_of("train", LOAD, ranks=ranks) == pytest.approx(rest + expected)


def test_covariances_are_counted_as_they_are_stored() -> None:
    orders = sum((LOAD.channels * (32 - abs(m))) ** 2 for m in range(-31, 32))
    assert LOAD.covariances == pytest.approx(orders, rel=0.05)
    few = replace(LOAD, block_degree=3)
    assert few.covariances == pytest.approx(9 * (2 * (16 + 9 + 4 + 1) + 28))
    assert few.mixed == 9 * (32**2 - 4**2) and LOAD.mixed == 0
    assert few.network_products < LOAD.network_products
    assert time_of("preprocess", few) < time_of("preprocess", LOAD)


def test_without_prices_a_plan_has_no_times() -> None:
    without, priced = (estimates(LOAD, Machines(), price) for price in (None, UNIT))
    assert [one.stage for one in without] == NAMES
    assert all(one.seconds is None for one in without)
    assert [replace(one, seconds=None) for one in priced] == without


@pytest.mark.parametrize(
    ("time", "words"),
    [(None, "-"), (0.4, "0 s"), (90, "1.5 min"), (7200, "2.0 h"), (1e6, "11.6 d")],
)
def test_durations_are_spoken_in_the_largest_fitting_unit(time: float | None, words: str) -> None:
    assert duration(time) == words


def test_the_whole_law_holds_as_many_copies_of_its_fields_as_are_counted() -> None:
    generator, phase = np.random.default_rng(0), np.linspace(0, 6, 180)
    x = generator.standard_normal((180, 3, 256)).astype(np.float32)
    tracemalloc.start()
    WholeLaw.fit(x[:150], phase[:150], x[150:], phase[150:])
    copies = tracemalloc.get_traced_memory()[1] / (8 * 150 * 3 * 256)
    tracemalloc.stop()
    assert sizes.WHOLE / 2 < copies < sizes.WHOLE


def traced_preprocess(root: Path, days: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """The most bytes that a unit of preprocess holds, over those of a block, in this process."""
    grid, layout, key = RingGrid.gaussian(48), StoreLayout(str(root)), "f" * 64
    values = np.random.default_rng(0).standard_normal((days, *grid.shape)).astype(np.float32)
    times = np.datetime64("2001-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    coords = {
        "time": times,
        "lat": ("lat", np.asarray(grid.latitudes), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(96) * 3.75, {"units": "degrees_east"}),
    }
    dataset = xr.Dataset({"v": (("time", "lat", "lon"), values, {"units": "K"})}, coords=coords)
    path, shard = layout.artifact("fields", key), {"time": 256}
    artifacts.create(path, dataset, chunks={"time": 64}, shards=shard)
    units = artifacts.plan_units({"time": days}, shard)
    for unit in units:
        artifacts.write_unit(path, unit, dataset.isel(unit.region))
    artifacts.publish(layout, "fields", key, units, {})
    edges = (0, days // 2, 3 * days // 4, days)
    split = {
        name: [str(times[start])[:10], str(times[stop - 1])[:10]]
        for name, (start, stop) in zip(
            ("train", "validation", "test"), itertools.pairwise(edges), strict=True
        )
    }
    config = RunConfig.from_dict(
        {
            "run": {"root": str(root)},
            "source": {"paths": ["unused.nc"], "variables": ["v"]},
            "split": split,
            "spectral": {"lmax": 15},
            "train": {"steps": 1},
            "generate": {"realizations": 1, "times": split["test"][:1]},
        }
    )
    most = 0

    def here(client: Any, work: Any, units: Any, *_: Any, **__: Any) -> list[Any]:
        nonlocal most
        done = []
        for unit in units:
            tracemalloc.start()
            done.append(work(unit))
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return done

    for module in (fitting, preprocess):
        monkeypatch.setattr(module, "map_units", here)
    preprocess.run(config, layout, None, lambda *_: None)  # type: ignore[arg-type]
    return most / (8 * grid.size * fitting.block_times(dataset, 1))


def test_a_worker_of_preprocess_holds_some_copies_of_a_block_whatever_the_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (
        traced_preprocess(tmp_path / str(days), days, monkeypatch) for days in (1024, 4096)
    )
    assert long == pytest.approx(short, rel=0.05)
    assert sizes.BLOCKS / 2 < long < sizes.BLOCKS
    assert (fitting.BLOCK_BYTES, fitting.LARGEST_BLOCK) == (sizes.BLOCK_BYTES, sizes.BLOCK_TIMES)


def test_a_worker_of_preprocess_has_room_for_the_block_that_it_holds() -> None:
    """One was seen to take 1,095 MB of 4,096 days of 257 x 512, for which 790 were planned."""
    seen = replace(LOAD, times=4096, channels=1, nlat=257, points=257 * 512, shard=64)
    (known,) = (e for e in estimates(seen, Machines(), None) if e.stage == "preprocess")
    assert 1_095_000_000 < known.memory < 1.5 * 1_095_000_000


def test_the_memory_of_verification_depends_neither_on_dates_nor_on_realizations() -> None:
    fine = replace(LOAD, channels=20, nlat=360, points=360 * 720, lmax=179, years=40)

    def memory(realizations: int, dates: int, **more: Any) -> tuple[int, int]:
        load = replace(fine, verification=(realizations, dates), **more)
        (known,) = (e for e in estimates(load, Machines(), None) if e.stage == "verify")
        return known.memory, known.memory_here

    once, four, sixteen = memory(64, 64), memory(128, 128), memory(256, 256)
    for known in (four, sixteen):
        assert known == pytest.approx(once, rel=0.1)
    assert memory(64, 64, times=500_000, fitted=400_000, years=1000)[0] == once[0]
    assert work(replace(LOAD, verification=(8, 16)))["verify"].scored > (
        3 * work(LOAD)["verify"].scored
    )


def test_bounds_of_what_verification_holds_are_those_that_it_keeps_to() -> None:
    assert (arena.NUMBERS, compared.VALUES, compared.UNIT_BYTES) == (
        sizes.NUMBERS,
        sizes.VALUES,
        sizes.UNIT_BYTES,
    )
    bank = inspect.signature(proper_scores.nearest).parameters["numbers"].default
    assert (bank, by_degree.FIELDS, by_degree.UNITS) == (sizes.BANK, sizes.PAIRED, sizes.TABLES)
    assert candidates.REPLICATES + 1 == sizes.REPLICATES
    assert certificate.TOGETHER == sizes.PARTIAL


def test_what_a_training_keeps_for_its_gradient_is_what_is_counted() -> None:
    """At most, and at least 0.6 of it: there is room for what is made on the way."""
    for width, blocks in ((32, 4), (16, 1)):
        network = score_network(
            baseline=fit_isotropic(Moments.of(np.ones((2, 3, 256)))),
            factor=np.broadcast_to(np.eye(3), (16, 3, 3)).copy(),
            static=np.zeros((1, 256)),
            width=width,
            blocks=blocks,
        )
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            if tensor.numel() > 3 * 256:
                kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        x, t = torch.randn(4, 3, 256), torch.full((4,), 0.3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            posterior = Posterior(t, network.baseline.variance)
            network.standardised(posterior, t, x, torch.zeros(4, 1)).square().mean()
        load = replace(LOAD, channels=3, lmax=15, batch=4, width=width, blocks=blocks)
        counted = sizes.activations(load, 1)
        assert 0.6 * counted < sum(kept.values()) < counted, (width, sum(kept.values()), counted)
        assert sizes.activations(replace(load, accumulate=4), 1) == counted / 4


def test_a_worker_of_verify_has_room_for_the_whole_law_where_it_is_fitted() -> None:
    few = replace(LOAD, fitted=1000, validated=200, verification=(2, 2))
    (known,) = (e for e in estimates(few, Machines(), None) if e.stage == "verify")
    assert sizes.whole_law(few) == 10 * 8 * 800 * few.channels * few.coefficients
    assert known.memory >= sizes.INTERPRETER_BYTES + sizes.whole_law(few)
    assert sizes.whole_law(replace(few, lmax=255, fitted=10_000)) == 0, "too many to fit it"


def test_days_of_sequences_are_counted_as_they_are_drawn() -> None:
    """Five members are two microbatches of four; a unit of states and of fields has 64 days."""
    load = replace(LOAD, sequences=((5, 100), (1, 10)), past=2, learned=6, microbatch=4)
    alone = replace(LOAD, microbatch=4)
    done, without = counts.work(load)["generate"], counts.work(alone)["generate"]
    rows = 8 * 100 + 4 * 10
    assert done.values - without.values == 510 * LOAD.channels * LOAD.points
    assert done.network - without.network == rows * 6 * LOAD.network_products
    assert done.legendre - without.legendre == (
        510 * LOAD.legendre_flops + 8 * rows * LOAD.covariances
    )
    assert done.units - without.units == 2 * (5 * 2 + 1)
    (more,), (less,) = (
        [one for one in estimates(each, Machines(), UNIT) if one.stage == "generate"]
        for each in (load, alone)
    )
    assert more.bytes - less.bytes == 510 * (LOAD.field_bytes + 4 * LOAD.channels * 32**2)
    assert more.files - less.files == (5 * 2 + 1) * (1 + LOAD.channels)
    assert more.memory >= less.memory
    assert more.seconds > less.seconds
