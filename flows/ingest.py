"""Ingest: raw files to one checked and labelled store of physical fields.

    fields.zarr
      <variable>(time, lat, lon | cell)   float32, attributes of the source, NaN where missing
      <static>(lat, lon | cell)           float32, maps without time
      <covariate>(time)                   float64, interpolated to the times of the fields
      time, bounds, lat, lon | cell       as in the source; what was normalised is in `notes`

Chunks are a few times of the whole sphere, shards many times. One unit is one shard of every
variable. A cell may be missing always or never; missing values that `source.fill` gives a number
have it in cells that are not always missing.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import ceil, floor, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr

from flows.cluster import as_lost, map_units
from flows.config import RunConfig, Source
from flows.increments import marks_of
from flows.keys import digest_of_source, ingest_key, source_files
from flows.stage import Progress, Receipt
from storage import artifacts
from storage.covariates import add_covariates
from storage.inspection import Inspection, inspect
from storage.layout import StoreLayout
from storage.sources import SourceError, SourceReport, digest_of, file_digests, open_source

if TYPE_CHECKING:
    from distributed import Client

STAGE = "ingest"
KIND = "fields"

CHUNK_BYTES = 1 << 20  # read at once, per variable
SHARD_BYTES = 64 << 20  # written at once, per variable, at most
FEWEST_UNITS = 16  # as far as whole chunks allow, so that a small source keeps workers busy too

Masks = Mapping[str, np.ndarray]


class InputChanged(RuntimeError):
    """The source is no longer what it was when the stage began."""

    exit_code = 11


def run(
    config: RunConfig, layout: StoreLayout, client: "Client | None", progress: Progress
) -> Receipt:
    """Check the source, write its fields by units on the cluster, publish them.

    Raises:
        SourceError: If the source is not acceptable; nothing is published then.
        InputChanged: If the files changed while they were read.
    """
    assert client is not None
    began = time.monotonic()
    files = source_files(config.source)
    with look_first(config.source) as looking:  # while their digests are made
        digests = file_digests(files)
        looking.wait()
    digest = digest_of(digests)
    content = ingest_key(config, digest)
    with _faults_of_files(config.source, digest), _computed_by(client):
        fields, report, masks = open_fields(config.source)  # reads every value: on the cluster too

    path = layout.artifact(KIND, content)
    sizes = unit_sizes(fields, config.source)
    family = ingest_key(config, "any")
    shards = {"time": sizes["shard"]}
    artifacts.create(path, fields, chunks={"time": sizes["chunk"]}, shards=shards, family=family)
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    marks = marks_of(units, fields, report, digests, masks)
    artifacts.adopt_units(path, units, artifacts.donors(layout, KIND, family), marks)
    missing = artifacts.missing_units(path, units)
    write = partial(
        write_fields, path, config.source, digest, masks, marks=marks, fills=report.fills
    )
    done = len(units) - len(missing)
    with _faults_of_files(config.source, digest):
        written = map_units(client, write, missing, progress, label="fields", done=done)

    _require_unchanged(config.source, digest)
    figures = {"times": fields.sizes["time"], "variables": len(config.source.variables)}
    attrs = {
        "figures": figures,
        "seconds": time.monotonic() - began,
        "source_files": [Path(file).name for file in report.files],
        "source_digest": digest,
        "notes": [*report.notes, *report.gaps],
        "config": config.to_dict(),
    }
    published = artifacts.publish(layout, KIND, content, units, attrs, written)
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=content,
        digest=published.digest,
        seconds=time.monotonic() - began,
        figures=figures,
    )


def look_first(source: Source, *, whole: bool = False) -> Inspection:
    """Have a child process open the files, before this one or a worker does."""
    tables = [file for file in source.covariates.values() if not file.endswith(".csv")]
    names = (*source.variables, *source.static, *source.covariates)
    return inspect((*source.paths, *tables), names, group=source.group, whole=whole)


@contextmanager
def _faults_of_files(source: Source, digest: str) -> Iterator[None]:
    """What kills or fails workers for no other reason may lie in a file: then the error names it.

    Raises:
        InputChanged, SourceError: If the files changed, or one of them breaks a child process too.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "exit_code", 1) not in (1, 40, 41):
            raise
        _require_unchanged(source, digest)
        with look_first(source, whole=True) as looking:
            looking.wait()
        raise as_lost(error) from error


def _computed_by(client: "Client") -> Any:
    """Dask computes on this client, which is asked for nothing, and so not started, before."""

    def compute(graph: Any, keys: Any, **how: Any) -> Any:
        with dask.config.set(scheduler=None):  # workers that start are sent the configuration
            return client.get(graph, keys, **how)

    return dask.config.set(scheduler=compute)


def _require_unchanged(source: Source, digest: str) -> None:
    if digest_of_source(source) != digest:
        raise InputChanged(
            f"{', '.join(source_files(source))} changed while being read; nothing is published. "
            "Run again once the files are complete"
        )


def open_fields(source: Source) -> tuple[xr.Dataset, SourceReport, Masks]:
    """Open the source and check all its values.

    Returns:
        The dataset to write, what was normalised in it, and the masks (True = missing) of the
        variables that have missing cells.
    Raises:
        SourceError: If the source is refused, or values are missing in a way `source.fill` does
            not provide for.
    """
    fields, report = _open(source, missing=source.missing, check_values=True)
    for name, found in report.missing.items():
        policy = source.fill_of(name)
        if found.count and not found.static and not isinstance(policy, float):
            raise SourceError(
                f"{name}: {found.count} values are missing in cells that have values at other "
                "times, as at a moving ice edge or in a satellite's gaps; only cells that are "
                "missing always can be filled from their neighbours. Complete the source, or say "
                f"what a missing value stands for: source.fill = {{ {name} = 0.0 }}"
            )
        if found.count and policy == "refuse":
            raise SourceError(
                f"{name}: {found.fraction:.1%} of its values are missing; say how the model shall "
                f'fill these cells: source.fill = {{ {name} = "harmonic" }} (the ensemble has them '
                "masked again)"
            )
    incomplete = [name for name, found in report.missing.items() if found.count]
    masks = {
        name: fields[name].isnull().all("time").values
        if not report.missing[name].static
        else fields[name].isel(time=0).isnull().values
        for name in incomplete
        if name in source.variables
    }
    return fields, report, masks


def write_fields(
    path: Path,
    source: Source,
    digest: str,
    masks: Masks,
    unit: artifacts.Unit,
    marks: Mapping[str, str] | None = None,
    fills: Mapping[str, float] | None = None,
) -> artifacts.Record:
    """Write one unit: all variables at its times. Runs on a worker, which trusts the masks."""
    fields = _kept_open(source, digest)
    names = [*source.variables, *source.covariates]
    block = fields[names].isel(unit.region).load(scheduler="synchronous")
    for name, mask in masks.items():
        policy, known = source.fill_of(name), block[name]
        if fills and name in fills:
            known = known.where(known != np.float32(fills[name]))
        whole = known.fillna(policy) if isinstance(policy, float) else known
        block[name] = whole.where(~mask)
    extra = {"mark": marks[unit.name]} if marks else {}
    return artifacts.write_unit(path, unit, block, extra=extra)


def unit_sizes(fields: xr.Dataset, source: Source) -> dict[str, int]:
    """Times per chunk and per shard, from the metadata alone."""
    times = fields.sizes["time"]
    field_bytes = max(4 * fields[name].isel(time=0).size for name in source.variables)
    chunk = min(max(1, CHUNK_BYTES // field_bytes), 64, times)
    wanted = min(SHARD_BYTES // field_bytes, ceil(times / FEWEST_UNITS))
    # Powers of two, so that a record that grows by a few times keeps the shards that it has.
    return {"chunk": chunk, "shard": chunk * 2 ** max(0, floor(log2(max(1, wanted / chunk))))}


def _kept_open(source: Source, digest: str) -> xr.Dataset:
    """The source, opened by a worker for its first unit; files that change are found afterwards."""
    place = f"{digest} {source}"
    if place not in _OPENED:
        _OPENED.clear()
        _OPENED[place], _ = _open(source, missing={}, check_values=False)
    return _OPENED[place]


_OPENED: dict[str, xr.Dataset] = {}  # one source per process


def _open(
    source: Source, *, missing: Mapping[str, float], check_values: bool
) -> tuple[xr.Dataset, SourceReport]:
    fields, report = open_source(
        source.paths,
        source.variables,
        missing=missing,
        valid_range=source.valid_range,
        check_values=check_values,
        **how_to_open(source),
    )
    return add_covariates(fields, source.covariates), report


def how_to_open(source: Source) -> dict[str, Any]:
    """The part of the configuration that says where things are in the files."""
    names = (
        "units",
        "allow_gaps",
        "static",
        "dims",
        "select",
        "samples",
        "period",
        "healpix",
        "group",
    )
    return {name: getattr(source, name) for name in names}
