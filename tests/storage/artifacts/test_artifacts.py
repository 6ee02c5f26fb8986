"""An artifact is whole or it is not there, and its bytes depend on its content alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout, manifest_of, record_of
from storage.artifacts.publishing import Unit
from storage.places.files import sha256_of, write_file_once

KEY = artifacts.content_key(stage="test", schema=1, config={}, inputs={}, code="")
OTHER_KEY = artifacts.content_key(stage="test", schema=2, config={}, inputs={}, code="")
CHUNKS = {"realization": 1, "time": 2}
SHARDS = {"realization": 1, "time": 4}


def fields(realizations: int = 3) -> xr.Dataset:
    """Values that tell their own place; 6 times make one whole and one half shard."""
    shape = (realizations, 6, 4, 8)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 0.25
    values[0, 0] = np.nan
    time = np.datetime64("2000-01-01T12:00", "ns") + np.arange(6) * np.timedelta64(1, "D")
    bounds = np.stack([time - np.timedelta64(12, "h"), time + np.timedelta64(12, "h")], axis=1)
    dims = ("realization", "time", "lat", "lon")
    return xr.Dataset(
        {
            "ta": (dims, values, {"units": "K", "standard_name": "air_temperature"}),
            "pr": (dims, -values, {"units": "kg m-2 s-1"}),
            "orog": (("lat", "lon"), np.zeros((4, 8), dtype=np.float32), {"units": "m"}),
        },
        coords={
            "realization": ("realization", np.arange(realizations), {"units": "1"}),
            "time": ("time", time, {"standard_name": "time", "bounds": "time_bnds"}),
            "time_bnds": (("time", "bnds"), bounds),
            "lat": ("lat", np.linspace(-75.0, 75.0, 4), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(8) * 45.0, {"units": "degrees_east"}),
        },
        attrs={"title": "a test"},
    )


def plan(dataset: xr.Dataset) -> list[Unit]:
    return artifacts.plan_units({d: dataset.sizes[d] for d in SHARDS}, SHARDS)


def part(dataset: xr.Dataset, unit: Unit) -> xr.Dataset:
    return dataset[["ta", "pr"]].isel(unit.region)


def create(layout: StoreLayout, dataset: xr.Dataset, key: str = KEY) -> Path:
    path = layout.artifact("ensemble", key)
    artifacts.create(path, dataset, chunks=CHUNKS, shards=SHARDS, family="f")
    return path


def build(layout: StoreLayout, dataset: xr.Dataset, key: str = KEY) -> artifacts.Published:
    path = create(layout, dataset, key)
    for unit in artifacts.missing_units(path, plan(dataset)):
        artifacts.write_unit(path, unit, part(dataset, unit))
    return artifacts.publish(layout, "ensemble", key, plan(dataset), {"seed": 7})


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(str(tmp_path / "run"))


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.unlink()  # hard links of other artifacts keep their bytes
    path.write_bytes(content)


def test_plain_xarray_opens_a_published_store_without_warnings(layout):
    dataset = fields()
    artifact = build(layout, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(layout.name("ensemble")).load()
    expected = dataset.reset_coords("time_bnds")
    xr.testing.assert_equal(opened, expected)
    assert set(opened.data_vars) == set(expected.data_vars)
    assert opened.ta.dtype == np.float32
    assert opened.ta.attrs == dataset.ta.attrs
    assert opened.attrs["title"] == "a test"
    assert opened.attrs["seed"] == 7
    assert opened.attrs["artifact_digest"] == artifact.digest
    assert opened.time.attrs["bounds"] == "time_bnds"


def test_zarr_reads_the_same_with_and_without_consolidated_metadata(layout):
    artifact = build(layout, fields())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = zarr.open_group(artifact.path, mode="r", use_consolidated=False)
        consolidated = zarr.open_group(artifact.path, mode="r", use_consolidated=True)
        assert sorted(plain.array_keys()) == sorted(consolidated.array_keys())
        for name in plain.array_keys():
            assert str(plain[name].metadata) == str(consolidated[name].metadata)


def test_nobody_opens_an_unpublished_store(layout):
    dataset = fields()
    path = create(layout, dataset)
    for unit in plan(dataset):
        with pytest.raises(FileNotFoundError):
            xr.open_zarr(path)
        with pytest.raises(FileNotFoundError):
            xr.open_zarr(path, consolidated=False)
        with pytest.raises(FileNotFoundError):
            zarr.open_group(path, mode="r")
        artifacts.write_unit(path, unit, part(dataset, unit))
    assert artifacts.find(layout, "ensemble", KEY) is None
    assert artifacts.published(layout, "ensemble") is None
    with pytest.raises(artifacts.IncompleteArtifact, match="not published"):
        artifacts.open_published(layout, "ensemble")


def test_a_published_artifact_is_found_under_its_key_alone(layout):
    artifact = build(layout, fields())
    assert artifacts.find(layout, "ensemble", KEY) == artifact
    assert artifacts.find(layout, "ensemble", OTHER_KEY) is None
    assert artifacts.published(layout, "ensemble") == artifact
    assert audit.check(layout) == []


def test_open_published_gives_bounds_as_coordinates(layout):
    build(layout, fields())
    opened = artifacts.open_published(layout, "ensemble")
    assert set(opened.data_vars) == {"ta", "pr", "orog"}
    assert "time_bnds" in opened.coords
    assert opened.ta.chunks is None
    chunked = artifacts.open_published(layout, "ensemble", chunks={"time": 4})
    assert chunked.ta.chunksizes["time"] == (4, 2)


def test_the_digest_does_not_depend_on_the_order_of_units(tmp_path):
    digests = set()
    for order in (1, -1):
        layout = StoreLayout(str(tmp_path / str(order)))
        dataset = fields()
        path = create(layout, dataset)
        for unit in plan(dataset)[::order]:
            artifacts.write_unit(path, unit, part(dataset, unit))
        digests.add(artifacts.publish(layout, "ensemble", KEY, plan(dataset), {}).digest)
    assert len(digests) == 1


def test_the_digest_sees_data_and_array_metadata_but_no_root_attributes(tmp_path):
    def digest(name: str, dataset: xr.Dataset) -> str:
        return build(StoreLayout(str(tmp_path / name)), dataset).digest

    reference = digest("reference", fields())
    assert digest("titled", fields().assign_attrs(title="another")) == reference
    changed = fields()
    changed["ta"][2, 5, 3, 7] += 1
    assert digest("changed", changed) != reference
    relabelled = fields()
    relabelled["ta"].attrs["units"] = "degC"
    assert digest("relabelled", relabelled) != reference


def test_resuming_redoes_the_missing_units_alone_and_gives_the_same_digest(tmp_path):
    dataset = fields()
    undisturbed = build(StoreLayout(str(tmp_path / "undisturbed")), dataset)
    layout = StoreLayout(str(tmp_path / "killed"))
    path = create(layout, dataset)
    units = plan(dataset)
    for unit in units[:2]:
        artifacts.write_unit(path, unit, part(dataset, unit))
    with pytest.raises(artifacts.IncompleteArtifact, match="lacks 4 of 6 units"):
        artifacts.publish(layout, "ensemble", KEY, units, {})
    create(layout, dataset)
    assert artifacts.missing_units(path, units) == units[2:]
    assert build(layout, dataset).digest == undisturbed.digest


@pytest.mark.parametrize("harm", ["flip", "delete", "truncate", "record", "no record"])
def test_a_harmed_unit_is_missing_and_its_repair_gives_the_same_digest(tmp_path, harm):
    dataset = fields()
    undisturbed = build(StoreLayout(str(tmp_path / "undisturbed")), dataset)
    layout = StoreLayout(str(tmp_path / "harmed"))
    path = create(layout, dataset)
    units = plan(dataset)
    for unit in units:
        artifacts.write_unit(path, unit, part(dataset, unit))
    shard = path / "pr" / "c/1/1/0/0"
    record = record_of(layout.artifact("ensemble", KEY), units[3].name)
    match harm:
        case "flip":
            flip_bit(shard, 40)
        case "delete":
            shard.unlink()
        case "truncate":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "record":
            record.write_text(record.read_text()[:-20])
        case "no record":
            record.unlink()
    assert artifacts.missing_units(path, units) == [units[3]]
    assert build(layout, dataset).digest == undisturbed.digest


def test_publish_reads_again_what_this_run_did_not_write(tmp_path, monkeypatch):
    dataset, read = fields(), []
    monkeypatch.setattr(
        "storage.artifacts.units.sha256_of",
        lambda path: read.append(path.parts[-6:]) or sha256_of(path),
    )
    layout = StoreLayout(str(tmp_path / "run"))
    path = create(layout, dataset)
    units = plan(dataset)
    records = [artifacts.write_unit(path, unit, part(dataset, unit)) for unit in units]
    assert artifacts.missing_units(path, units, records) == [] and read == []
    assert artifacts.missing_units(path, units, records[1:]) == []
    assert {place[0] for place in read} == {"ta", "pr"} and len(read) == 2
    shard = path / "pr" / "c/1/1/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    read.clear()
    there, missing = artifacts.adopt_units(path, units, [])
    assert missing == [units[3]] and len(read) == 2 * len(there)  # a size tells without reading
    assert artifacts.missing_units(path, units, there) == missing and len(read) == 2 * len(there)
    stranger = {**records[0], "files": [{**records[0]["files"][0], "sha256": "0" * 64}]}
    assert artifacts.missing_units(path, units, [stranger, *records[1:]]) == [units[3]]


def test_writing_a_unit_again_changes_no_byte(layout):
    dataset = fields()
    path = create(layout, dataset)
    unit = plan(dataset)[0]
    first = artifacts.write_unit(path, unit, part(dataset, unit))
    assert artifacts.write_unit(path, unit, part(dataset, unit)) == first


def test_a_record_keeps_what_the_writer_adds(layout):
    dataset = fields()
    path = create(layout, dataset)
    unit = plan(dataset)[0]
    artifacts.write_unit(path, unit, part(dataset, unit), extra={"checkpoint": "abc"})
    record = record_of(layout.artifact("ensemble", KEY), unit.name)
    assert json.loads(record.read_text())["extra"] == {"checkpoint": "abc"}


def test_no_directory_has_too_many_records_of_a_thousand_realizations_of_forty_years():
    """Eight realizations and eight days in a unit, as they are drawn."""
    units = artifacts.plan_units(
        {"realization": 1000, "time": 14610}, {"realization": 8, "time": 8}
    )
    places = [record_of(Path("ensemble.zarr"), unit.name) for unit in units]
    assert len(set(places)) == len(units) == 125 * 1827
    entries = Counter(place.parent for place in places)
    assert len(entries) == 125 and max(entries.values()) == 1827


def test_a_record_that_lies_deep_is_looked_at_by_check(layout):
    dataset = fields()
    build(layout, dataset)
    record = record_of(layout.artifact("ensemble", KEY), plan(dataset)[1].name)
    assert record.parent.parent == layout.records("ensemble", KEY) and audit.check(layout) == []
    record.write_text(record.read_text().replace("sha256", "sha257", 1))
    assert any("its seal does not match" in said for said in audit.check(layout))


@pytest.mark.parametrize("time", [slice(0, 2), slice(2, 6), slice(0, 5)])
def test_a_unit_that_cuts_a_shard_is_refused(layout, time):
    dataset = fields()
    path = create(layout, dataset)
    unit = Unit(0, {"realization": slice(0, 1), "time": time})
    with pytest.raises(ValueError, match="whole shards"):
        artifacts.write_unit(path, unit, part(dataset, unit))
    assert not (path / "ta" / "c").exists()


def test_a_unit_with_other_variables_sizes_or_types_is_refused(layout):
    dataset = fields()
    path = create(layout, dataset)
    unit = plan(dataset)[0]
    with pytest.raises(ValueError, match="waits for"):
        artifacts.write_unit(path, unit, part(dataset, unit)[["ta"]])
    with pytest.raises(ValueError, match="the template has float32"):
        artifacts.write_unit(path, unit, part(dataset, unit).isel(time=slice(0, 3)))
    with pytest.raises(ValueError, match="complex"):
        artifacts.write_unit(path, unit, part(dataset, unit).astype(complex))
    assert artifacts.missing_units(path, [unit]) == [unit]


def test_units_that_leave_shards_out_are_not_published(layout):
    dataset = fields()
    path = create(layout, dataset)
    units = plan(dataset)
    for unit in units[:-1]:
        artifacts.write_unit(path, unit, part(dataset, unit))
    with pytest.raises(artifacts.IncompleteArtifact, match="leave 2 shards out"):
        artifacts.publish(layout, "ensemble", KEY, units[:-1], {})


def test_a_shard_full_of_the_fill_value_is_a_file_nevertheless(layout):
    dataset = fields() * np.float32(np.nan)
    dataset["realization"] = [0, 1, 2]
    artifact = build(layout, dataset)
    assert (artifact.path / "ta" / "c/0/0/0/0").exists()
    assert audit.check(layout) == []


def test_every_flipped_bit_is_detected_by_check_and_no_flip_reads_as_numbers(layout):
    dataset = fields()
    artifact = build(layout, dataset)
    shard = artifact.path / "ta" / "c/1/0/0/0"
    good = shard.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.choice(len(good), 40, replace=False):
        flip_bit(shard, int(position))
        (problem,) = audit.check(layout)
        assert str(shard) in problem and "corrupt" in problem
        with pytest.raises(ValueError, match=r"(?i)checksum|crc"):
            xr.open_zarr(artifact.path).ta.load()
        shard.write_bytes(good)
    assert audit.check(layout) == []


def test_a_flipped_bit_in_any_other_file_is_detected_by_check(layout):
    artifact = build(layout, fields())
    manifest = manifest_of(artifact.path, artifact.digest)
    files = [p for p in artifact.path.rglob("*") if p.is_file()]
    assert len(files) > 12
    for file in (*files, manifest):
        good = file.read_bytes()
        flip_bit(file, len(good) // 2)
        assert audit.check(layout), file
        file.write_bytes(good)
    assert audit.check(layout) == []


@pytest.mark.parametrize("step", ["write_json", "write_file_once", "point_name"])
def test_two_that_publish_at_once_leave_one_whole_artifact(layout, monkeypatch, step):
    """One stands still at a step of its publication while another goes through all of it."""
    dataset, real = fields(), getattr(artifacts, step)
    path, units = create(layout, dataset), plan(dataset)
    records = [artifacts.write_unit(path, unit, part(dataset, unit)) for unit in units]

    def while_another_publishes(*arguments, **options):
        monkeypatch.undo()
        other = artifacts.publish(layout, "ensemble", KEY, units, {"seconds": 2.0})
        result = real(*arguments, **options)
        assert artifacts.find(layout, "ensemble", KEY).digest == other.digest
        return result

    monkeypatch.setattr(artifacts, step, while_another_publishes)
    artifacts.publish(layout, "ensemble", KEY, units, {"seconds": 1.0}, records)
    assert audit.check(layout) == []
    assert artifacts.open_published(layout, "ensemble").load().sizes["realization"] == 3


@pytest.mark.parametrize("step", ["write_json", "write_directory_once", "point_name"])
def test_of_two_reports_at_once_the_first_stays_whole(layout, monkeypatch, step):
    real = getattr(artifacts, step)
    first, second = ({"scores.json": b"{}", "report.html": text} for text in (b"first", b"second!"))

    def while_another_publishes(*arguments, **options):
        monkeypatch.undo()
        artifacts.publish_files(layout, "report", KEY, first, {})
        return real(*arguments, **options)

    monkeypatch.setattr(artifacts, step, while_another_publishes)
    found = artifacts.publish_files(layout, "report", KEY, second, {})
    assert audit.check(layout) == []
    assert found == artifacts.published(layout, "report")
    kept = b"second!" if step == "point_name" else b"first"
    assert layout.report.read_bytes() == kept
    assert [*layout.artifacts.glob(".*")] == []


def test_a_deleted_chunk_is_an_error_and_never_a_fill_value(layout):
    artifact = build(layout, fields())
    shard = artifact.path / "ta" / "c/2/1/0/0"
    shard.unlink()
    assert audit.check(layout) == [f"{shard} is missing"]
    with pytest.raises(artifacts.CorruptArtifact, match=r"ta/c/2/1/0/0.*move it away"):
        artifacts.open_published(layout, "ensemble")
    with pytest.raises(artifacts.CorruptArtifact):
        artifacts.find(layout, "ensemble", KEY)


def test_a_foreign_file_is_reported(layout):
    artifact = build(layout, fields())
    (artifact.path / "ta" / "notes.txt").write_text("hello")
    (problem,) = audit.check(layout)
    assert "notes.txt does not belong" in problem


def test_publishing_again_changes_nothing(layout):
    dataset = fields()
    first = build(layout, dataset)
    before = {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}
    assert artifacts.publish(layout, "ensemble", KEY, plan(dataset), {"seed": 8}) == first
    assert {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()} == before


@pytest.fixture
def durable(monkeypatch) -> dict[Path, list[str]]:
    """What is waited for until it is on disk: for each directory the names in it by then."""
    found: dict[Path, list[str]] = {}
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            found[path] = [one.name for one in path.iterdir()]

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_publication_waits_for_every_directory_whoever_made_it(layout, durable):
    dataset = fields()
    path = create(layout, dataset)
    for unit in plan(dataset):
        artifacts.write_unit(path, unit, part(dataset, unit))
    durable.clear()  # those who made them died before they had waited
    artifact = artifacts.publish(layout, "ensemble", KEY, plan(dataset), {})
    files = [artifact.path / "zarr.json", *(artifact.path / "ta" / "c").rglob("*")]
    for file in (*files, *files[0].parents[:4]):
        assert file.name in durable[file.parent], file


@pytest.mark.parametrize("kind", ["store", "files"])
def test_what_another_published_is_waited_for_before_a_name_leads_there(layout, durable, kind):
    if kind == "store":
        made = build(layout, fields())
    else:
        made = artifacts.publish_files(layout, "report", KEY, {"scores.json": b"{}"}, {})
    layout.name(made.kind).unlink()
    durable.clear()
    found = artifacts.find(layout, made.kind, KEY)
    artifacts.point_name(layout, found)
    marker = "zarr.json" if kind == "store" else "published.json"
    assert marker in durable[made.path]
    assert made.path.name in durable[made.path.parent]
    assert "artifacts" in durable[layout.path]


def test_the_name_moves_to_the_new_artifact_and_the_old_one_stays(layout):
    old = build(layout, fields())
    new = build(layout, fields() + np.float32(1), OTHER_KEY)
    assert artifacts.published(layout, "ensemble") == new
    link = os.readlink(layout.name("ensemble"))
    assert not os.path.isabs(link)
    assert artifacts.find(layout, "ensemble", KEY) == old
    artifacts.point_name(layout, old)
    assert artifacts.published(layout, "ensemble") == old


def test_a_moved_run_still_opens(layout, tmp_path):
    build(layout, fields())
    shutil.move(layout.root, tmp_path / "elsewhere")
    moved = StoreLayout(str(tmp_path / "elsewhere"))
    assert artifacts.open_published(moved, "ensemble").sizes["realization"] == 3


def test_a_foreign_directory_under_the_name_is_not_replaced(layout):
    layout.name("ensemble").mkdir(parents=True)
    with pytest.raises(artifacts.NameConflict, match="move it away"):
        build(layout, fields())


def test_a_growing_ensemble_makes_the_new_realizations_alone(layout):
    small, large = fields(4), fields(6)
    old = build(layout, small)
    before = {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file()}
    path = create(layout, large, OTHER_KEY)
    units = plan(large)
    donors = artifacts.donors(layout, "ensemble", "f")
    assert old.path in donors
    there, missing = artifacts.adopt_units(path, units, donors)
    assert len(there) == len(units) - len(missing)
    assert (
        artifacts.missing_units(path, units)
        == missing
        == [u for u in units if u.region["realization"].start >= 4]
    )
    for unit in missing:
        artifacts.write_unit(path, unit, part(large, unit))
    new = artifacts.publish(layout, "ensemble", OTHER_KEY, units, {})
    assert {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file()} == before
    assert audit.check(layout) == []
    xr.testing.assert_equal(artifacts.open_artifact(new).load(), large)
    shutil.rmtree(old.path)
    assert audit.check(layout) == []


def test_a_grown_ensemble_has_the_digest_of_one_made_at_once(layout, tmp_path):
    at_once = build(StoreLayout(str(tmp_path / "at once")), fields(6))
    build(layout, fields(4))
    path = create(layout, fields(6), OTHER_KEY)
    artifacts.adopt_units(path, plan(fields(6)), artifacts.donors(layout, "ensemble", "f"))
    assert build(layout, fields(6), OTHER_KEY).digest == at_once.digest


def test_units_are_not_adopted_from_a_donor_with_other_coordinates(layout):
    build(layout, fields(4))
    shifted = fields(4).assign_coords(realization=[10, 11, 12, 13])
    path = create(layout, shifted, OTHER_KEY)
    there, missing = artifacts.adopt_units(path, plan(shifted), [layout.artifact("ensemble", KEY)])
    assert there == [] and missing == plan(shifted)


def test_a_corrupt_donor_gives_nothing_for_the_harmed_unit(layout):
    old = build(layout, fields(4))
    flip_bit(old.path / "ta" / "c/1/0/0/0", 20)
    path = create(layout, fields(6), OTHER_KEY)
    units = plan(fields(6))
    there, missing = artifacts.adopt_units(path, units, [old.path])
    assert len(there) == 7
    assert units[2] in missing


def test_without_shards_all_is_written_at_creation(layout):
    normals = xr.Dataset(
        {"scale": (("channel", "degree"), np.eye(2))}, coords={"channel": ["ta", "pr"]}
    )
    artifacts.create(layout.artifact("normals", KEY), normals)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artifacts.publish(layout, "normals", KEY, [], {})
        opened = artifacts.open_published(layout, "normals").load()
    np.testing.assert_array_equal(opened.scale, np.eye(2))
    assert opened.scale.sel(channel="pr").values.tolist() == [0.0, 1.0]
    assert [str(c) for c in opened.channel.values] == ["ta", "pr"]


def test_lazy_variables_that_do_not_wait_for_units_are_written_at_creation(layout):
    dataset = fields()
    dataset["orog"] += 100
    artifact = build(layout, dataset.chunk())
    opened = xr.open_zarr(artifact.path)
    np.testing.assert_array_equal(opened.orog, dataset.orog)
    np.testing.assert_array_equal(opened.time_bnds, dataset.time_bnds)


def test_uncompressed_arrays_keep_their_checksum(layout):
    path = layout.artifact("whitened", KEY)
    x = xr.Dataset({"x": (("time", "coefficient"), np.ones((4, 9), dtype=np.float32))})
    artifacts.create(path, x, chunks={"time": 2}, shards={"time": 4}, compress=False)
    (unit,) = units = artifacts.plan_units({"time": 4}, {"time": 4})
    artifacts.write_unit(path, unit, x)
    artifacts.publish(layout, "whitened", KEY, units, {})
    inner = json.loads((path / "x" / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "crc32c"]
    assert inner["index_codecs"][-1]["name"] == "crc32c"


def test_other_calendars_survive_the_round_trip(layout):
    time = xr.date_range("2000-02-28", periods=3, calendar="360_day", use_cftime=True)
    dataset = xr.Dataset({"a": ("time", np.ones(3, dtype=np.float32))}, coords={"time": time})
    path = layout.artifact("fields", KEY)
    artifacts.create(path, dataset, shards={"time": 3})
    units = artifacts.plan_units({"time": 3}, {"time": 3})
    artifacts.write_unit(path, units[0], dataset)
    artifacts.publish(layout, "fields", KEY, units, {})
    opened = artifacts.open_published(layout, "fields")
    assert opened.time.dt.calendar == "360_day"
    assert (opened.time.values == dataset.time.values).all()


def test_the_plan_covers_every_cell_once():
    sizes, shards = {"realization": 5, "time": 7}, {"realization": 2, "time": 3}
    count = np.zeros((5, 7), dtype=int)
    units = artifacts.plan_units(sizes, shards)
    for unit in units:
        count[unit.region["realization"], unit.region["time"]] += 1
    assert (count == 1).all()
    assert [unit.index for unit in units] == list(range(len(units)))
    assert len({unit.name for unit in units}) == len(units)


def test_canonical_json_has_one_text_for_one_value():
    text = artifacts.canonical_json({"b": (1, np.float64(0.1)), "a": None})
    assert text == '{"a":null,"b":[1,0.1]}'
    with pytest.raises(ValueError):
        artifacts.canonical_json(float("nan"))
    with pytest.raises(TypeError, match="text keys"):
        artifacts.canonical_json({1: 2})
    with pytest.raises(TypeError, match="set"):
        artifacts.canonical_json({1})


def test_the_content_key_changes_with_each_of_its_parts():
    parts = {"stage": "s", "schema": 1, "config": {}, "inputs": {}, "code": "c"}
    others = {"stage": "t", "schema": 2, "config": {"a": 1}, "inputs": {"x": "y"}, "code": "d"}
    keys = {artifacts.content_key(**parts)}
    keys |= {artifacts.content_key(**{**parts, name: other}) for name, other in others.items()}
    assert len(keys) == 6


def test_the_code_digest_follows_programs_and_not_their_text(tmp_path, monkeypatch):
    def digest(text: str, helper: str) -> str:
        (tmp_path / "subject_of_digest.py").write_text(text)
        (tmp_path / "storage_helper.py").write_text(helper)
        return artifacts.code_digest(["subject_of_digest"])

    monkeypatch.syspath_prepend(tmp_path)
    reference = digest('"""Doc."""\ndef f(x):\n    return x + 1\n', "")
    assert digest('"""New."""\n# why\ndef f(x):\n    return (x + 1)\n', "") == reference
    assert digest("def f(x):\n    return x + 2\n", "") != reference


def test_the_code_digest_includes_what_the_house_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "subject_of_digest.py").write_text("from storage import layout\n")
    shallow = artifacts.code_digest(["subject_of_digest"])
    (tmp_path / "subject_of_digest.py").write_text("from storage import layout, units\n")
    deep = artifacts.code_digest(["subject_of_digest"])
    assert shallow != deep


def house_of(files: Mapping[str, str], place: Path) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def digest_in(place: Path, *modules: str, beyond: str = "") -> str:
    """The code digest as a process of its own sees it, whose house is the one in this place."""
    keys = Path(artifacts.__file__).with_name("keys.py")
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('asked', {str(keys)!r})\n"
        "asked = importlib.util.module_from_spec(spec)\n"
        "sys.modules['asked'] = asked\n"
        "spec.loader.exec_module(asked)\n"
        f"print(asked.code_digest({list(modules)!r}, {[beyond] if beyond else []!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


HELPER = "def half(x):\n    return x / 2\n"
STAGE = "from {0} import half\nCSS = 'page.css'\ndef f(x):\n    return half(x)\n"
BEFORE = {
    "flows/act.py": STAGE.format("storage.helper"),
    "flows/page.css": "a",
    "storage/helper.py": HELPER,
}


def test_a_pure_move_keeps_the_code_digest(tmp_path):
    after = {
        "flows/wing/act.py": STAGE.format("storage.rooms.halves"),
        "flows/wing/page.css": "a",
        "flows/wing/__init__.py": "",
        "storage/rooms/__init__.py": "",
        "storage/rooms/halves.py": HELPER,
    }
    before = digest_in(house_of(BEFORE, tmp_path / "a"), "flows.act")
    assert digest_in(house_of(after, tmp_path / "b"), "flows.wing.act") == before


@pytest.mark.parametrize(
    "change",
    [
        {"storage/helper.py": "def half(x):\n    return x / 3\n"},
        {"flows/page.css": "b"},
        {
            "flows/act.py": STAGE.format("storage.other"),
            "storage/other.py": HELPER + "ONE = 1\n",
        },
    ],
    ids=["what is imported", "a file that is named", "the same name from elsewhere"],
)
def test_what_a_program_takes_from_the_house_is_in_its_digest(change, tmp_path):
    before = digest_in(house_of(BEFORE, tmp_path / "a"), "flows.act")
    assert digest_in(house_of(BEFORE | change, tmp_path / "b"), "flows.act") != before


def test_what_lies_beyond_is_no_part_of_the_digest(tmp_path):
    change = {"storage/helper.py": "def half(x):\n    return x / 3\n"}
    houses = [house_of(files, tmp_path / n) for n, files in (("a", BEFORE), ("b", BEFORE | change))]
    first, second = (digest_in(one, "flows.act", beyond="storage.helper") for one in houses)
    assert first == second


def test_a_file_that_is_there_is_not_replaced(tmp_path):
    path, beside = tmp_path / "zarr.json", tmp_path / ".zarr.json.1-00000000"
    write_file_once(path, b"first", beside)
    with pytest.raises(FileExistsError):
        write_file_once(path, b"second", beside)
    assert path.read_bytes() == b"first"
    assert not beside.exists()
