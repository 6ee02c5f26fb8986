"""New, replaced and earlier files: what is unchanged is linked, and the bytes are those of a
run that knew all files from the start."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.ingest import ingest
from storage.artifacts.layout import StoreLayout


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "CHUNK_BYTES", 4 * 512)  # four times of the source


@pytest.fixture
def files(tmp_path: Path, table: dict[str, Any], source: xr.Dataset) -> list[Path]:
    """The source as three files of thirty days, of which the configuration takes all there are."""
    (tmp_path / "source.nc").unlink()
    table["source"]["paths"] = [str(tmp_path / "part-*.nc")]
    table["split"] = {  # in the second file
        "train": ["2001-02-01", "2001-02-14"],
        "validation": ["2001-02-15", "2001-02-21"],
        "test": ["2001-02-22", "2001-02-28"],
    }
    table["generate"]["times"] = ["2001-02-10"]
    paths = [tmp_path / f"part-{index}.nc" for index in range(3)]
    for index, path in enumerate(paths):
        source.isel(time=slice(30 * index, 30 * index + 30)).to_netcdf(path)
    return paths


def ingested(
    table: dict[str, Any], client: Any, root: str = ""
) -> tuple[str, dict[str, int], list[int]]:
    """Digest, inode by shard, and how many units were done at the start and in the end."""
    config = RunConfig.from_dict({**table, "run": {"root": root or table["run"]["root"]}})
    told: list[int] = []
    progress: Progress = lambda done, total, text: told.append(done)  # noqa: E731
    receipt = ingest.run(config, StoreLayout(config.run.root), client, progress)
    shards = Path(receipt.path) / "z" / "c"
    inodes = {file.parts[-3]: file.stat().st_ino for file in shards.rglob("*") if file.is_file()}
    return receipt.digest, inodes, told


def test_new_times_are_appended_and_nothing_else_is_written(
    table: dict[str, Any], files: list[Path], client: Any, tmp_path: Path
) -> None:
    later = files[2].rename(tmp_path / "later.nc")
    _, before, _ = ingested(table, client)
    later.rename(files[2])
    digest, after, told = ingested(table, client)

    whole = {str(index) for index in range(15)}  # of four days each; the sixteenth was cut at 60
    assert {shard for shard in before if before[shard] == after.get(shard)} == whole
    assert len(after) == 23
    assert told[0] == 15
    again, linked, told = ingested(table, client)
    assert (again, linked) == (digest, after)
    assert set(told) <= {23}, "a second run has nothing to do"
    fresh, _, _ = ingested(table, client, str(tmp_path / "fresh"))
    assert fresh == digest, "the bytes do not tell how the record grew"


def test_replaced_data_are_written_and_nothing_else(
    table: dict[str, Any], files: list[Path], client: Any, source: xr.Dataset, tmp_path: Path
) -> None:
    old, before, _ = ingested(table, client)
    files[1].unlink()
    (source.isel(time=slice(30, 60)) + 1).assign(
        z=(source["z"][30:60] + 1).assign_attrs(source["z"].attrs)
    ).to_netcdf(tmp_path / "part-1-final.nc")
    digest, after, _ = ingested(table, client)

    changed = {shard for shard in after if before[shard] != after[shard]}
    assert changed == {str(index) for index in range(7, 15)}  # days 28 to 59
    assert digest != old
    layout = StoreLayout(table["run"]["root"])
    fields = xr.open_zarr(layout.name("fields"))
    np.testing.assert_array_equal(fields["z"][30:60], source["z"][30:60] + 1)
    np.testing.assert_array_equal(fields["z"][60:], source["z"][60:])
    older = [
        path
        for path in layout.artifacts.glob("fields-*.zarr")
        if path != Path(fields.encoding["source"]).resolve()
    ]
    first = xr.open_zarr(older[0])
    np.testing.assert_array_equal(first["z"], source["z"])  # what was published has not changed


def test_earlier_data_come_first(
    table: dict[str, Any], files: list[Path], client: Any, source: xr.Dataset, tmp_path: Path
) -> None:
    hidden = files[0].rename(tmp_path / "earlier.nc")
    ingested(table, client)
    hidden.rename(files[0])
    digest, _, _ = ingested(table, client)
    fields = xr.open_zarr(StoreLayout(table["run"]["root"]).name("fields"))
    np.testing.assert_array_equal(fields["z"], source["z"])
    fresh, _, _ = ingested(table, client, str(tmp_path / "fresh"))
    assert fresh == digest


def test_another_configuration_takes_no_unit(
    table: dict[str, Any], files: list[Path], client: Any
) -> None:
    _, before, _ = ingested(table, client)
    table["source"]["units"] = {"z": "cm"}
    _, after, told = ingested(table, client)
    assert told[0] == 0
    assert not set(before.values()) & set(after.values())
