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
from flows.stages.ingest.unit_marks import marked
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.axes import toml_key
from storage.guards.inspection import Inspection, inspect
from storage.places.places import Place
from storage.sources.covariates import add_covariates
from storage.sources.empty_maps import as_ranges, require_values_at_all_times
from storage.sources.formats.opening import UNREADABLE
from storage.sources.formats.reading import Reading
from storage.sources.source_files import digest_of, file_digests
from storage.sources.sources import (
    Missing,
    SourceError,
    SourceReport,
    look,
    open_source,
    unreadable,
)
from storage.sources.survey import Survey, total
from storage.sources.values import Settled, constant_zeros, is_plausible, judge, settle

if TYPE_CHECKING:
    from distributed import Client

STAGE = "ingest"
KIND = "fields"

CHUNK_BYTES = 1 << 20  # read at once, per variable
SHARD_BYTES = 64 << 20  # written at once, per variable, at most
MASK_EVER = "mask-ever"  # the policy of cells that are missing at some times
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
    source = config.source
    files = source_files(source)
    with look_first(source) as looking:  # while their digests are made
        digests = file_digests(files)
        looking.wait()
    digest = digest_of(digests)
    content = ingest_key(config, digest)
    source = _without_empty_maps(source, digest, client, progress)
    fields, report = open_fields(source)
    require_dates(config, fields["time"])
    path = layout.artifact(KIND, content)
    sizes = unit_sizes(fields, source)
    family = ingest_key(config, "any")
    shards = {"time": sizes["shard"]}
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    notes: list[str] = []
    maps = look(fields, source.static, {}, {}, notes)
    settled = Settled(fields, {}, {}, {}, {}, {})
    if beforehand(source):
        surveys = _surveyed(source, fields, digest, client, progress)
        settled = settle(fields, surveys, source.missing, notes)
        _require_policies(source, settled, maps, fields, report)
    masks = masks_of(source, settled, notes)

    artifacts.create(path, fields, chunks={"time": sizes["chunk"]}, shards=shards, family=family)
    units = marked(units, fields, report, digests, masks)
    there, missing = artifacts.adopt_units(path, units, artifacts.donors(layout, KIND, family))
    write = partial(write_fields, path, source, digest, masks, fills=settled.fills)
    with _faults_of_files(source, digest):
        written = _mapped(client, write, missing, progress, label="fields", done=len(there))
    if not beforehand(source):
        records = artifacts.unit_records(path, units)
        found = [_from_json(record["extra"]["survey"]) for record in records]
        surveys = summed(found)
        settled = settle(fields, surveys, {}, notes)
    _require_policies(source, settled, maps, fields, report)

    _require_unchanged(source, digest)
    figures: dict[str, Any] = {
        "times": fields.sizes["time"],
        "variables": len(config.source.variables),
    }
    zeros = {
        name: words
        for name, seen in surveys.items()
        if name not in source.missing and (words := constant_zeros(name, seen))
    }
    if zeros:
        figures["zeros"] = zeros
        notes += [f"{name}: {words}" for name, words in zeros.items()]
    attrs = {
        "figures": figures,
        "seconds": time.monotonic() - began,
        "source_files": [Path(file).name for file in report.files],
        "source_digest": digest,
        "notes": [*report.notes, *notes, *report.gaps],
        "config": config.to_dict(),
    }
    published = artifacts.publish(layout, KIND, content, units, attrs, [*there, *written])
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=content,
        digest=published.digest,
        seconds=time.monotonic() - began,
        figures=figures,
    )


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


def look_first(source: Source, *, whole: bool = False) -> Inspection:
    """Have a child process open the files, before this one or a worker does."""
    tables = [file for file in source.covariates.values() if not file.endswith(".csv")]
    names = (*source.variables, *source.static, *source.covariates)
    return inspect((*source.paths, *tables), names, reading=asdict(reading_of(source)), whole=whole)


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


def beforehand(source: Source) -> bool:
    """Whether what is written depends on masks, so that all values are looked at first.

    Otherwise they are looked at while they are written, and read once.
    """
    policies = [source.fill_of(name) for name in source.variables]
    masked = any(isinstance(policy, float) or policy == MASK_EVER for policy in policies)
    return bool(source.missing) or masked


def masks_of(source: Source, settled: Settled, notes: list[str]) -> dict[str, np.ndarray]:
    """The cells of each variable that have no value in the fields."""
    masks = {}
    for name in source.variables:
        if name not in settled.masks:
            continue
        masks[name] = settled.masks[name]
        if source.fill_of(name) == MASK_EVER:
            masks[name] = settled.ever[name]
            more = int((masks[name] & ~settled.masks[name]).sum())
            notes.append(f"{name}: {more} cells that are missing at some times are masked at all")
    return masks


def _require_policies(
    source: Source, settled: Settled, maps: Settled, fields: xr.Dataset, report: SourceReport
) -> None:
    require_values_at_all_times(
        fields["time"], settled.empty, report.files, report.origins, source.group
    )
    require_policies(source, {**settled.missing, **maps.missing}, fields)


def require_policies(source: Source, missing: Mapping[str, Missing], fields: xr.Dataset) -> None:
    """Raise SourceError if values are missing in a way `source.fill` does not provide for."""
    for name, found in missing.items():
        policy, key = source.fill_of(name), toml_key(name)
        bounds = source.valid_range.get(name)
        if isinstance(policy, float) and not found.static:
            plausible, low, high = is_plausible(fields[name], policy, bounds)
            if not plausible:
                unit = fields[name].attrs.get("units")
                raise SourceError(
                    f"source.fill: {name} would be {policy:g} {unit} where it is missing, which is "
                    f"out of range ({low:g} to {high:g}). Mask the cells that are missing at some "
                    f'time: source.fill = {{ {key} = "{MASK_EVER}" }}'
                )
        elif not found.static and policy != MASK_EVER:
            raise SourceError(_moving(name, found, is_plausible(fields[name], 0.0, bounds)[0]))
        if policy == MASK_EVER and found.everywhere:
            raise SourceError(
                f"{name}: every cell is missing at some time, so that masking those leaves nothing;"
                " complete the source"
            )
        if policy == "refuse":
            raise SourceError(
                f"{name}: {found.fraction:.1%} of its values are missing; say how the model shall "
                f'fill these cells: source.fill = {{ {key} = "harmonic" }} (the '
                "ensemble has them masked again)"
            )


def _moving(name: str, found: Missing, zero: bool) -> str:
    """How cells can be dealt with that are missing at some times only."""
    key = toml_key(name)
    some = f"{found.moving} of them are" if found.moving < found.count else "all of them"
    stands = f", or say what it stands for: source.fill = {{ {key} = 0.0 }}" if zero else ""
    return (
        f"{name}: {found.count} values are missing, {some} in {found.cells} cells that have values "
        "at other times, as at a moving ice edge or in a satellite's gaps; only cells that are "
        "missing always can be filled from their neighbours. Complete the source, mask these cells "
        f'at all times: source.fill = {{ {key} = "{MASK_EVER}" }}{stands}'
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
    names = [*source.variables, *source.covariates]
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
        source.paths, source.variables, check_values=False, **how_to_open(source)
    )
    return add_covariates(fields, source.covariates), report


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
