"""A first configuration for files that nobody has described: `spherescore init`.

It names what was found and what was chosen; whoever runs it changes what does not fit. What some
times of a large source do not show is found by `ingest`, which says the remedy.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from flows.config.draft_split import Periods, periods_of
from flows.config.draft_values import declarations
from flows.config.schema import ConfigError, RunConfig, expanded
from pipeline.sphere.named_grids import grid_of
from storage.errors import SourceError
from storage.guards.named_files import matching_files, resolve
from storage.sources.candidates import Content, contents, names_with_dims
from storage.sources.joins import OverlappingForecasts
from storage.sources.sources import SourceReport, open_source

MOST_VARIABLES = 8
LEVELS = ("850", "500", "250")  # taken of many, where they are there
LARGEST_LMAX = 63  # what a machine without a GPU learns in an hour
FEWEST_TO_LEARN = 300  # training fields; with fewer a Gaussian law is drawn


def starter(paths: Sequence[str], root: str) -> str:
    """The text of a configuration that reads these files.

    Raises:
        SourceError: If they hold no field, or cannot be read; the message says what is there.
    """
    paths = [expanded(path, "paths") for path in paths]
    found = contents(paths)
    usable = [one for one in found if not one.refused]
    kinds = Counter(one.kind for one in usable if one.series)
    if not kinds:
        raise SourceError(
            f"{paths[0]}: no field along time on a global grid; {_reasons(found, paths)}"
        )
    (shape, samples), _ = kinds.most_common(1)[0]
    fields = [one for one in usable if one.series and one.kind == (shape, samples)]
    chosen = _chosen(fields)
    maps = [one.name for one in usable if not one.series and one.shape == shape]
    holders = {file for one in found if one.name in (*chosen, *maps) for file in one.files}
    files, given = resolve(paths), paths
    if strangers := [file for file in files if file not in holders]:
        paths = [file for file in files if file in holders]
    declared = {
        k: v for one in found if one.name in (*chosen, *maps) for k, v in one.declared.items()
    }
    opening = _Opening(tuple(paths), samples, {key: value for key, (value, _) in declared.items()})
    dataset, report, refused, lead = _opened(opening, chosen, maps)
    variables = [name for name in chosen if name in dataset]
    periods = periods_of(dataset["time"])
    lines = [
        *_head(dataset, report),
        "",
        "[run]",
        f"root = {json.dumps(root)}",
        "seed = 0",
        "",
        "[source]",
        f"paths = {_listed(_as_patterns(paths))}",
        *_counts(given),
        *(f"# not {file}: it has none of these variables" for file in strangers),
        f"variables = {_listed(variables)}",
        *_left_out(found, variables, maps, refused, shape, samples),
        *_members(dataset, samples),
        *lead,
        *(f"{key} = {json.dumps(value)}  # {why}" for key, (value, why) in declared.items()),
        *_maps(dataset, maps),
        *declarations(dataset, variables, periods.samples),
        *_gaps(report),
        "",
        *_split(dataset, periods),
        "",
        "[verify]",
        "dates = 48",
        "realizations = 16",
        "",
        "[cluster]",
        'kind = "local"',
        "workers = 2",
    ]
    text = "".join(f"{_on_one_line(line)}\n" for line in lines)
    _require_accepted(text)
    return text


def _chosen(fields: Sequence[Content]) -> list[str]:
    """Names to begin with: few levels of each variable, and not too many altogether."""
    names: list[str] = []
    for base in dict.fromkeys(one.name.partition("@")[0] for one in fields):
        own = [one.name for one in fields if one.name.partition("@")[0] == base]
        usual = [name for name in own if name.partition("@")[2] in LEVELS]
        names += own if len(own) < 4 else usual or [own[0], own[len(own) // 2], own[-1]]
    return names[:MOST_VARIABLES]


@dataclass(frozen=True)
class _Opening:
    """How a source is opened, whichever of its variables are."""

    paths: tuple[str, ...]
    samples: str
    declared: Mapping[str, bool | str | dict[str, float]]

    def open(self, names: Sequence[str], maps: Sequence[str]) -> tuple[xr.Dataset, SourceReport]:
        options: Any = self.declared
        return open_source(
            self.paths,
            names,
            static=maps,
            samples=self.samples,
            allow_gaps=True,
            check_values=False,
            **options,
        )

    def fault(self, names: Sequence[str], maps: Sequence[str]) -> str:
        """Why these do not open together; nothing if they do."""
        try:
            self.open(names, maps)
        except SourceError as error:
            return str(error)
        return ""


def _opened(
    opening: _Opening, names: Sequence[str], maps: Sequence[str]
) -> tuple[xr.Dataset, SourceReport, dict[str, str], list[str]]:
    """What opens together; else without the variables that do not open alone, and why.

    Of forecasts that overlap one lead is chosen; the last of what is returned is the line of the
    configuration that says so.
    """
    try:
        return *opening.open(names, maps), {}, []
    except OverlappingForecasts as error:
        if "select" in opening.declared:
            raise
        chosen = replace(opening, declared={**opening.declared, "select": error.select})
        line = f"{error.line}  # of forecasts that overlap; or another of their leads"
        return *_opened(chosen, names, maps)[:3], [line]
    except SourceError as whole:
        refused = {name: why for name in names if (why := opening.fault([name], ()))}
        kept = [name for name in names if name not in refused]
        if not kept:
            raise whole from None
        refused |= {name: why for name in maps if (why := opening.fault(kept[:1], [name]))}
        if not refused:
            raise whole from None
        maps = [name for name in maps if name not in refused]
        return *opening.open(kept, maps), refused, []


def _head(dataset: xr.Dataset, report: SourceReport) -> Iterator[str]:
    times = dataset.indexes["time"].unique()
    steps = sorted(np.diff(times.to_numpy()))
    apart = f", usually {_spoken(pd.Timedelta(steps[len(steps) // 2]))} apart" if steps else ""
    yield "# Written by `spherescore init`: look it through, then `spherescore plan` and `run`."
    yield f"# Files: {len(report.files)}. Grid: {grid_of(dataset).describe()}."
    fields = f" ({len(dataset['time'])} fields)" if len(times) < len(dataset["time"]) else ""
    yield f"# Times: {len(times)}{fields}, from {times[0]} to {times[-1]}{apart}."
    for note in report.notes:
        yield f"# Note: {note}"


def _left_out(
    found: Sequence[Content],
    variables: Sequence[str],
    maps: Sequence[str],
    refused: dict[str, str],
    shape: tuple[int, ...],
    samples: str,
) -> Iterator[str]:
    others = [one for one in found if one.name not in (*variables, *maps)]
    usable = [
        one.name
        for one in others
        if not one.refused and one.series and one.kind == (shape, samples)
    ]
    if usable := [name for name in usable if name not in refused]:
        yield f"# there are also: {', '.join(usable)}"
    for one in others:
        if one.refused or one.name in refused:
            yield f"# not {one.name}: {one.refused or refused[one.name]}"
        elif one.shape != shape:
            yield f"# not {one.name}: on another grid, {' x '.join(map(str, one.shape))}"
        elif one.series and one.samples != samples:
            yield f"# not {one.name}: it has {one.samples or 'no'} members"


def _members(dataset: xr.Dataset, samples: str) -> Iterator[str]:
    if samples:
        count = len(np.unique(dataset["member"].to_numpy())) if "member" in dataset.coords else 1
        yield f"samples = {json.dumps(samples)}  # {count} members, each a sample of its time"


def _maps(dataset: xr.Dataset, maps: Sequence[str]) -> Iterator[str]:
    if there := [name for name in maps if name in dataset]:
        yield f"static = {_listed(there)}  # maps that the model is given"


def _gaps(report: SourceReport) -> Iterator[str]:
    if report.gaps:
        more = f" and {len(report.gaps) - 1} more" if len(report.gaps) > 1 else ""
        yield f"allow_gaps = true  # {report.gaps[0]}{more}"


def _split(dataset: xr.Dataset, periods: Periods) -> Iterator[str]:
    yield "[split]"
    uses = ("learned from", "chooses shrinkage and weights, calibrates", "scores only")
    for name, use in zip(("train", "validation", "test"), uses, strict=True):
        yield f"{name} = {_listed(getattr(periods, name))}  # {use}"
    for name, labels in periods.members.items():
        yield f"{name}_members = {_listed(labels)}"
    for note in periods.notes:
        yield f"# {note}"
    most = grid_of(dataset).max_lmax
    yield ""
    yield "[spectral]"
    yield f"lmax = {min(most, LARGEST_LMAX)}  # inclusive; the grid determines {most}"
    yield ""
    yield "[train]"
    if periods.samples < FEWEST_TO_LEARN:
        yield f'model = "gaussian:m-block"  # {periods.samples} fields are too few for a network'
    else:
        yield "minutes = 30  # or steps; whichever ends first"
    yield ""
    yield "[generate]"
    yield "realizations = 32"
    why = "  # of the season that is learned; that of the test is not"
    why = "" if periods.held_out or periods.members else why
    yield f"times = {_listed(periods.asked)}{why}"


def _as_patterns(paths: Sequence[str]) -> list[str]:
    """A pattern in the place of many files that a shell made of it."""
    parents, suffixes = {Path(p).parent for p in paths}, {Path(p).suffix for p in paths}
    if len(paths) > 4 and len(parents) == len(suffixes) == 1 and "://" not in paths[0]:
        (parent,), (suffix,) = parents, suffixes
        if set(parent.glob(f"*{suffix}")) == set(map(Path, paths)):
            return [f"{parent}/*{suffix}"]  # the directory is there: its letters are no pattern
    return list(paths)


def _counts(paths: Sequence[str]) -> Iterator[str]:
    """How many files each pattern matched."""
    for path in paths:
        if "://" not in path and not Path(path).exists():
            count = len(matching_files(path))
            yield f"# {path}: {count} file{'s' * (count != 1)}"


def _require_accepted(text: str) -> None:
    import tomllib

    try:
        RunConfig.from_dict(tomllib.loads(text))
    except (ConfigError, ValueError) as error:
        raise SourceError(f"no configuration can be made of these files: {error}") from error


def _on_one_line(text: str) -> str:
    """Nothing that files say of themselves may become a line of the configuration."""
    return "".join(c if c.isprintable() else " " for c in text)


def _reasons(found: Sequence[Content], paths: Sequence[str]) -> str:
    if found:
        first = next((one for one in found if one.refused), found[0])
        others = [one.name for one in found if one is not first]
        more = f"; nor can {', '.join(others[:6])} be taken" if others else ""
        return f"{first.name}: {first.refused or 'a map without time'}{more}"
    held = names_with_dims(paths)
    return f"it has {', '.join(held[:6]) or 'no variables'}{' and more' if len(held) > 6 else ''}"


def _spoken(step: pd.Timedelta) -> str:
    hours = step / pd.Timedelta(hours=1)
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def _listed(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)
