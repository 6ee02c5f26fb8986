"""`make bench` without its work: rows, table, page and chart of figures written by hand."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "deploy" / "bench"
RIVALS = {"rival_torch_harmonics", "rival_shtns"}  # these import what only build/rivals has

BY_HAND = """[
 {"row": "analysis", "rival": "ducc0", "unit": "us/field", "goal": 1.0, "ours": 125.0,
  "theirs": 1000.0, "limit_share": 0.58, "note": "", "ratio": 8.0},
 {"row": "training", "rival": "U-Net", "unit": "samples/s", "goal": 1.0, "ours": 30.0,
  "theirs": 40.0, "limit_share": null, "note": "5 | 6", "ratio": 0.75},
 {"row": "synthesis", "rival": "shtns", "unit": "us/field", "goal": 1.0, "ours": null,
  "theirs": null, "limit_share": null, "note": "not installed: no FFTW", "ratio": null}
]"""

TABLE = """\
| row | rival | ours | theirs | unit | ratio | goal | share of limit | note |
|---|---|---|---|---|---|---|---|---|
| analysis | ducc0 | 125 | 1,000 | us/field | 8 | 1 | 58% |  |
| training | U-Net | 30 | 40 | samples/s | 0.75 | 1 |  | 5 / 6 |
| synthesis | shtns |  |  | us/field |  | 1 |  | not installed: no FFTW |"""


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def module(name: str) -> Any:
    return importlib.import_module(f"deploy.bench.{name}")


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "bench.json"
    path.write_text(BY_HAND)
    return module("rows").load(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_every_module_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in RIVALS:
        for absent in ("torch_harmonics", "shtns"):
            monkeypatch.setitem(sys.modules, absent, ModuleType(absent))
    assert module(name)


def test_every_subject_declares_rows_of_its_own() -> None:
    rows = [row for name in module("run").SUBJECTS for row in module(name).ROWS]
    assert len({(row.row, row.rival, row.unit) for row in rows}) == len(rows)
    assert all(row.ours is None and row.goal and row.unit for row in rows)


def test_every_rival_has_a_module_and_an_exact_version() -> None:
    lines = (BENCH / "rivals.txt").read_text().splitlines()
    names = [line.split("==")[0] for line in lines if line and not line.startswith("#")]
    assert {f"rival_{name.replace('-', '_')}" for name in names} == RIVALS
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_rates_and_times_both_give_ratios_above_one_where_ours_is_better(by_hand: Any) -> None:
    assert [row.ratio for row in by_hand] == [8.0, 0.75, None]


def test_rows_survive_the_file(by_hand: Any, tmp_path: Path) -> None:
    module("rows").save(by_hand, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(BY_HAND)


def test_the_table_shows_every_row_and_why_one_is_empty(by_hand: Any) -> None:
    assert module("rows").markdown(by_hand) == TABLE


def test_only_the_marked_region_of_the_page_changes(by_hand: Any) -> None:
    rows, begin, end = module("rows"), "<!-- bench:begin -->", "<!-- bench:end -->"
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    once = rows.insert(page, by_hand, "Measured here.")
    assert once == f"before\n{begin}\n\nMeasured here.\n\n{TABLE}\n\n{end}\nafter\n"
    assert rows.insert(once, by_hand, "Measured here.") == once
    with pytest.raises(ValueError, match="put them back"):
        rows.insert("no marks", by_hand, "")


def test_the_page_can_take_the_table(by_hand: Any) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert TABLE in module("rows").insert(page, by_hand, "Measured here.")


def test_a_row_that_fails_or_is_left_out_stays_in_the_table(
    by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = declared = tuple(row.absent("") for row in by_hand)

    def measure(quick: bool) -> Iterator[Any]:
        yield first.measured(1.0, 2.0)
        if not quick:
            raise OSError("disk full")

    subject = SimpleNamespace(ROWS=declared, measure=measure)
    monkeypatch.setitem(sys.modules, "deploy.bench.subject", subject)  # type: ignore[arg-type]
    rows_of = module("run").rows_of
    assert [row.note for row in rows_of("subject", False)] == [
        "",
        *["failed: OSError: disk full"] * 2,
    ]
    assert [row.note for row in rows_of("subject", True)] == ["", *["left out by --quick"] * 2]
    assert [row.row for row in rows_of("subject", True)] == ["analysis", "training", "synthesis"]


def test_calls_take_turns_after_a_warm_one_and_the_smallest_counts() -> None:
    order: list[str] = []

    def call(name: str, seconds: list[float]) -> Any:
        def once() -> float:
            order.append(name)
            return seconds.pop(0)

        return once

    best = module("timing").in_turns(
        call("ours", [0.1, 3.0, 2.0]), call("theirs", [0.1, 4.0, 5.0]), least=2, seconds=0
    )
    assert best == [2.0, 4.0]
    assert order == ["ours", "theirs"] * 3


def test_growth_is_judged_by_what_a_datum_takes_beyond_the_start() -> None:
    growth = module("growth")
    sizes = ((100, 3.0, 100), (400, 6.0, 110), (1600, 24.0, 125))  # data, seconds, MB
    found = [
        growth.Taken(seconds=seconds, count=count, memory=memory * 10**6, largest=memory * 10**6)
        for count, seconds, memory in sizes
    ]
    stage = growth.STAGES[0]
    rows = list(growth.rows(stage, found))
    assert all(row.is_for(declared) for row, declared in zip(rows, stage.rows, strict=True))
    assert [row.ratio for row in rows] == pytest.approx([2.0, 100 / 150, 100 / 110, 100 / 125])
    flat = [*found[:2], growth.Taken(seconds=6.0, count=1600, memory=1, largest=1)]
    assert "the start" in list(growth.rows(stage, flat))[1].note


def test_a_longer_series_is_the_same_days_again_and_takes_no_more_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growth = module("growth")
    monkeypatch.setattr(growth.inputs, "DATA", tmp_path / "data")
    sizes = growth.Sizes(growth.RingGrid.latlon(8, 16), 12, 1, 1, 2, 3, block=4)
    for factor in (1, 4):
        growth.series(tmp_path / f"{factor}x.zarr", sizes, factor)
    short, long = (xr.open_zarr(tmp_path / f"{n}x.zarr", consolidated=False) for n in (1, 4))
    assert short.sizes["time"] == 12 and long.sizes["time"] == 48
    assert len(np.unique(long["time"])) == 48
    np.testing.assert_array_equal(long["v"].values, np.tile(short["v"].values, (4, 1, 1)))
    assert float(short["v"].std()) > 0
    files = [path for path in (tmp_path / "4x.zarr" / "v" / "c").rglob("*") if path.is_file()]
    assert len(files) == 12 and {path.stat().st_nlink for path in files} == {5}


def test_the_memory_of_a_process_holds_that_of_its_children() -> None:
    growth = module("growth")
    program = "import time; kept = bytearray(b'x' * (64 << 20)); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(growth.YOUNG)
            held = growth.held_by(os.getpid())
            assert len(held) >= 2 and sum(held[1:]) > 64 << 20
        finally:
            child.kill()


def test_the_chart_is_a_picture(by_hand: Any, tmp_path: Path) -> None:
    module("picture").draw(by_hand, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_plans_on_paper_fit_into_64_gib_in_every_process() -> None:
    from flows.plan.costs import estimates

    paper = module("paper_plan")
    for plan in paper.plans():
        for one in estimates(plan.load, plan.machines, None):
            assert max(one.memory, one.memory_here) < 64 << 30, one
        assert any("block degree" in line for line in paper.lines(plan, None))


def test_the_plan_on_paper_is_the_one_that_the_command_accepts_from_metadata_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ERA5 at a quarter of a degree, 40 years, 20 variables, lmax 719: a store without values."""
    from flows.cli.main import main
    from flows.config.schema import read_config
    from flows.plan import plan
    from flows.processes import machine

    names = [f"v{number}" for number in range(20)]
    era5_of_metadata(tmp_path / "era5.zarr", names)
    file = tmp_path / "era5.toml"
    file.write_text(ERA5.format(root=tmp_path, names=json.dumps(names), dates=json.dumps(DATES)))
    for one in (plan, machine):
        monkeypatch.setattr(one, "machine_memory", lambda: 64 << 30)
    for free in ("free_space", "free_inodes"):
        monkeypatch.setattr(plan, free, lambda place: None)

    assert main(["plan", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    most = [max(one["memory"], one["memory_here"]) for one in said["stages"].values()]
    assert max(most) < 64 << 30
    assert plan.workload(read_config(str(file))) == module("paper_plan").plans()[0].load


DATES = [f"2019-{month:02d}-15" for month in range(1, 13)]
ERA5 = """
[run]
root = "{root}/run"
[source]
paths = ["{root}/era5.zarr"]
variables = {names}
[split]
train = ["1980-01-01", "2016-12-31"]
validation = ["2017-01-01", "2017-12-31"]
test = ["2018-01-01", "2019-12-31"]
[spectral]
lmax = 719
[train]
steps = 7812
batch = 256
accumulate = 4
ranks = 64
[generate]
realizations = 1000
times = {dates}
[cluster]
kind = "slurm"
workers = 64
memory = "64 GiB"
"""


def era5_of_metadata(path: Path, names: list[str]) -> None:
    """A Zarr store with coordinates, and no value of any of its variables."""
    days = np.datetime64("1980-01-01", "ns") + np.arange(14_610) * np.timedelta64(1, "D")
    empty = dask.array.zeros((len(days), 721, 1440), dtype=np.float32, chunks=-1)
    fields = {name: (("time", "latitude", "longitude"), empty, {"units": "K"}) for name in names}
    coords = {
        "time": days,
        "latitude": ("latitude", np.linspace(90, -90, 721), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(1440) * 0.25, {"units": "degrees_east"}),
    }
    encoding = {name: {"chunks": (16, 721, 1440), "_FillValue": np.nan} for name in names}
    xr.Dataset(fields, coords=coords).to_zarr(
        path, compute=False, encoding=encoding, zarr_format=3, consolidated=False
    )


def test_gpus_are_measured_where_there_are_some_and_otherwise_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = module("gpu")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_the_script_for_gpus_runs_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    gpu = module("gpu")
    threads = gpu.torch.get_num_threads()
    assert gpu.main(["--device", "cpu"]) == 0
    gpu.torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    for what in ("synthesis", "analysis", "score", "gradient", "draw"):
        assert f"| {what} | float32 | 0.0e+00 |" in "\n".join(lines)
    assert sum(line.startswith(("| training,", "| drawing,")) for line in lines) == 2


def test_results_are_equal_that_were_summed_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.sphere import torch_harmonics as harmonics

    gpu = module("gpu")
    load, single = gpu.TINY[0], gpu.torch.float32
    right = gpu.results(load, gpu.CPU, single)

    def as_on_a_gpu(self: Any) -> Any:
        return harmonics._grouped(self.grid, self.lmax, self.place.dtype, self.place.device)

    monkeypatch.setattr(harmonics.TorchHarmonics, "_maps", as_on_a_gpu)
    other = gpu.results(load, gpu.CPU, single)
    for what, allowed in gpu.TOLERANCES["float32"].items():
        assert 0 < gpu.difference(other[what], right[what]) < 0.1 * allowed, what


def test_the_difference_of_results_is_relative_and_not_a_number_is_none() -> None:
    gpu = module("gpu")
    right = gpu.torch.tensor([3.0, 4.0])
    assert gpu.difference(right, right) == 0
    assert gpu.difference(right + gpu.torch.tensor([0.3, 0.4]), right) == pytest.approx(0.1)
    assert gpu.difference(right * float("nan"), right) == float("inf")


def test_days_of_one_degree_have_the_demonstrations_weather_and_small_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.config.schema import read_config
    from pipeline.gaussian.spectra import power_spectrum

    degree = module("one_degree")
    (tmp_path / "run.toml").write_text(degree.configuration(tmp_path, 10.0, 2))
    monkeypatch.setattr(degree, "DAYS", 3)
    monkeypatch.setattr(degree, "BLOCK", 2)
    degree.files(tmp_path)
    config = read_config(tmp_path / "run.toml")
    fields = xr.open_mfdataset(sorted(map(str, tmp_path.glob("days-*.nc")))).load()
    assert set(config.source.variables) == set(fields) and len(config.source.variables) == 8
    assert fields.sizes == {"time": 3, "lat": 181, "lon": 360}
    assert float(fields["pr"].min()) == 0.0 and 5_000 < float(fields["zg500"].mean()) < 6_000
    spectrum = power_spectrum(degree.plan(degree.GRID, degree.LMAX).analysis(fields["tas"].values))
    assert np.isfinite(spectrum).all() and (spectrum[:, 40:] > 0).all()
