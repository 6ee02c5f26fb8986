"""Ingest: raw files to one checked and labelled store of physical fields.

    fields.zarr
      <variable>(time, lat, lon | cell)   float32, attributes of the source, NaN where missing
      <static>(lat, lon | cell)           float32, maps without time
      <covariate>(time)                   float64, interpolated to the times of the fields
      time, bounds, lat, lon | cell       as in the source; what was normalised is in `notes`

Chunks are a few times of the whole sphere, shards many times. One unit is one shard of every
variable. A cell may be missing always or never; missing values that `source.fill` gives a number
have it in cells that are not always missing. Each unit is looked at by the worker that writes it,
or before anything is written if masks decide what is written.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from math import ceil, floor, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.cluster.map_units import UnitFailed, map_units
from flows.config.schema import RunConfig, Source
from flows.errors import ExitCode
from flows.progress import Progress
from flows.stages.base import Receipt
from flows.stages.content_keys import digest_of_source, ingest_key, source_files
from flows.stages.dates import require_dates
from flows.stages.ingest.policies import beforehand, masks_of, require_values
from flows.stages.ingest.unit_marks import marked
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout
from storage.conventions.stated_values import explained
from storage.places.places import Place
from storage.sources.covariates import add_covariates
from storage.sources.empty_maps import as_ranges
from storage.sources.formats.opening import UNREADABLE
from storage.sources.formats.reading import Reading
from storage.sources.inspection import Inspection, inspect
from storage.sources.source_files import digest_of, file_digests
from storage.sources.sources import (
    SourceError,
    SourceReport,
    look,
    open_source,
    unreadable,
)
from storage.sources.survey import Survey, total
from storage.sources.values import Settled, constant_zeros, judge, settle

if TYPE_CHECKING:
    from distributed import Client

STAGE = "ingest"
KIND = "fields"

CHUNK_BYTES = 1 << 20  # read at once, per variable
SHARD_BYTES = 64 << 20  # written at once, per variable, at most
FEWEST_UNITS = 16  # as far as whole chunks allow, so that a small source keeps workers busy too

Masks = Mapping[str, np.ndarray]
Surveys = Mapping[str, Survey]  # by variable


class InputChanged(RuntimeError):
    """The source is no longer what it was when the stage began."""

    exit_code = ExitCode.INPUT_CHANGED


def run(
    config: RunConfig, layout: StoreLayout, client: "Client | None", progress: Progress
) -> Receipt:
    """Check the source, write its fields by units on the cluster, publish them.

    Raises:
        SourceError: If the source is not acceptable; nothing is published then.
        UnusableData, ConfigError: If its times are not those that the configuration speaks of.
        InputChanged: If the files changed while they were read.
    """
    assert client is not None
    began = time.monotonic()
    digests = _digests_of_files(config.source)
    digest = digest_of(digests)
    content = ingest_key(config, digest)
    source = _without_empty_maps(config.source, digest, client, progress)
    fields, report = open_fields(source)
    require_dates(config, fields["time"])
    notes: list[str] = []
    maps = look(fields, source.static, {}, {}, notes)
    settled = Settled(fields, {}, {}, {}, {}, {})
    if beforehand(source):
        surveys = _surveyed(source, fields, digest, client, progress)
        with explained(report.notes):
            settled = settle(fields, surveys, source.missing, notes)
        require_values(source, settled, maps, fields, report)
    masks = masks_of(source, settled, notes)

    sizes = unit_sizes(fields, source)
    store = lay_out(
        layout,
        KIND,
        content,
        ingest_key(config, "any"),
        fields,
        chunks={"time": sizes["chunk"]},
        shards={"time": sizes["shard"]},
        marked=partial(marked, fields=fields, report=report, digests=digests, masks=masks),
    )
    write = partial(write_fields, store.path, source, digest, masks, fills=settled.fills)
    with _faults_of_files(source, digest):
        done = len(store.there)
        written = _mapped(client, write, store.missing, progress, label="fields", done=done)
    if not beforehand(source):
        surveys = _seen_in_writing(store.path, store.units)
        with explained(report.notes):
            settled = settle(fields, surveys, {}, notes)
    require_values(source, settled, maps, fields, report)

    _require_unchanged(source, digest)
    figures = _figures(source, fields, surveys)
    notes += [f"{name}: {words}" for name, words in figures.get("zeros", {}).items()]
    attrs = {
        "figures": figures,
        "seconds": time.monotonic() - began,
        "source_files": [Path(file).name for file in report.files],
        "source_digest": digest,
        "notes": [*report.notes, *notes, *report.gaps],
        "config": config.to_dict(),
    }
    published = store.publish(attrs, written)
    return Receipt.of(STAGE, published, seconds=time.monotonic() - began)


def _without_empty_maps(
    source: Source, digest: str, client: "Client", progress: Progress
) -> Source:
    """The source with the times spelled out that `drop = ["empty"]` leaves out."""
    if "empty" not in source.drop:
        return source
    named = replace(source, drop=tuple(entry for entry in source.drop if entry != "empty"))
    fields, _ = open_fields(named)
    found = settle(fields, _surveyed(named, fields, digest, client, progress), named.missing, [])
    places = np.unique(np.concatenate([np.empty(0, dtype=int), *found.empty.values()]))
    return replace(named, drop=(*named.drop, *as_ranges(fields["time"].values, places)))


def _surveyed(
    source: Source, fields: xr.Dataset, digest: str, client: "Client", progress: Progress
) -> Surveys:
    """All values looked at once, on the cluster."""
    shards = {"time": unit_sizes(fields, source)["shard"]}
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    survey = partial(survey_fields, source, digest)
    with _faults_of_files(source, digest):
        return summed(_mapped(client, survey, units, progress, label="survey"))


def _digests_of_files(source: Source) -> dict[str, str]:
    """sha256 of each file, made while a child looks at them."""
    with look_first(source) as looking:
        digests = file_digests(source_files(source))
        looking.wait()
    return digests


def look_first(source: Source, *, whole: bool = False) -> Inspection:
    """Have a child process open the files, before this one or a worker does."""
    tables = [file for file in source.covariate_files if not file.endswith(".csv")]
    names = (*source.variables, *source.static, *source.covariate_names)
    return inspect((*source.files, *tables), names, reading=asdict(reading_of(source)), whole=whole)


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
        raise


def _require_unchanged(source: Source, digest: str) -> None:
    if digest_of_source(source) != digest:
        raise InputChanged(
            f"{', '.join(source_files(source))} changed while being read; nothing is published. "
            "Run again once the files are complete"
        )


def survey_fields(source: Source, digest: str, unit: artifacts.Unit) -> Surveys:
    """Look at the values of one unit, a variable at a time. Runs on a worker.

    Raises:
        SourceError: If values look like a fill value that nobody declared, or are out of range.
    """
    fields = _kept_open(source, digest)
    return {
        name: _seen(_loaded(fields[[name]].isel(unit.region), source)[name], source)
        for name in source.variables
    }


def _seen_in_writing(path: Place, units: Sequence[artifacts.Unit]) -> Surveys:
    """The surveys that workers made of the units that they wrote."""
    records = artifacts.unit_records(path, units)
    return summed([_from_json(record["extra"]["survey"]) for record in records])


def _figures(source: Source, fields: xr.Dataset, surveys: Surveys) -> dict[str, Any]:
    """What a summary says; `zeros` are variables that are 0 at many cells at all times."""
    zeros = {
        name: words
        for name, seen in surveys.items()
        if name not in source.missing and (words := constant_zeros(name, seen))
    }
    figures = {"times": fields.sizes["time"], "variables": len(source.variables)}
    return figures | ({"zeros": zeros} if zeros else {})


def summed(found: Sequence[Surveys]) -> Surveys:
    """The surveys of all units as one of each variable."""
    return {name: total(each[name] for each in found) for name in found[0]}


def write_fields(
    path: Place,
    source: Source,
    digest: str,
    masks: Masks,
    unit: artifacts.Unit,
    fills: Mapping[str, float] | None = None,
) -> artifacts.Record:
    """Write one unit: all variables at its times. Runs on a worker, which trusts the masks."""
    fields = _kept_open(source, digest)
    names = [*source.variables, *source.covariate_names]
    block = _loaded(fields[names].isel(unit.region), source)
    extra: dict[str, Any] = {}
    if not beforehand(source):
        seen = {name: _seen(block[name], source) for name in source.variables}
        extra["survey"] = {name: each.to_json() for name, each in seen.items()}
    for name, mask in masks.items():
        policy, known = source.fill_of(name), block[name]
        if fills and name in fills:
            known = known.where(known != np.float32(fills[name]))
        whole = known.fillna(policy) if isinstance(policy, float) else known
        block[name] = whole.where(~mask)
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
        _OPENED[place], _ = open_fields(source)
    return _OPENED[place]


_OPENED: dict[str, xr.Dataset] = {}  # one source per process


def open_fields(source: Source) -> tuple[xr.Dataset, SourceReport]:
    """The source as its metadata tell it."""
    fields, report = open_source(
        paths_of(source), source.variables, check_values=False, **how_to_open(source)
    )
    scenarios = {one.name: one.covariates for one in source.scenarios}
    return add_covariates(fields, source.covariates, scenarios), report


def _loaded(part: xr.Dataset, source: Source) -> xr.Dataset:
    """The values of a part, read by whoever asks; if that fails, the error has the file."""
    try:
        return part.load(scheduler="synchronous")
    except UNREADABLE as error:
        if hasattr(error, "exit_code"):
            raise
        names = (*source.variables, *source.static)
        raise unreadable(source_files(source), names, reading_of(source), error) from error


def _seen(block: xr.DataArray, source: Source) -> Survey:
    name = str(block.name)
    seen = Survey.of(block.values, source.missing.get(name))
    judge(block, seen, source.valid_range.get(name))
    return seen


def _from_json(plain: Mapping[str, Any]) -> Surveys:
    return {name: Survey.from_json(each) for name, each in plain.items()}


def _mapped(*arguments: Any, **options: Any) -> list[Any]:
    """`map_units`, with a refusal by a worker as the refusal that it is."""
    try:
        return map_units(*arguments, **options)
    except UnitFailed as error:
        if isinstance(error.__cause__, SourceError):
            raise error.__cause__ from None
        raise


def reading_of(source: Source) -> Reading:
    """The part of the configuration that says how files are read."""
    return Reading(group=source.group, grib=source.grib, zarr_fill=source.zarr_fill or "")


def paths_of(source: Source) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """The files of a source, or those of each of its scenarios by name."""
    return {one.name: one.paths for one in source.scenarios} or source.paths


def how_to_open(source: Source) -> dict[str, Any]:
    """The part of the configuration that says where things are in the files."""
    names = (
        "units",
        "missing",
        "valid_range",
        "allow_gaps",
        "static",
        "dims",
        "select",
        "samples",
        "period",
        "drop",
        "stamps",
        "healpix",
        "group",
        "grib",
        "zarr_fill",
        "band",
    )
    return {name: getattr(source, name) for name in names}
