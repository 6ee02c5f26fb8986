"""What sequences begin with: a draw, days of the source, or days of other sequences.

A branch goes on from a day of one realization of other sequences, of this run or of another one.
Until that day it is that realization; from there on its realizations draw noise of their own, of a
stream that no sequence that it comes from has. What lies beyond lmax remembers noise of days before
the branch, so a branch knows whose those days were.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import DRAW, ConfigError, DrawnSequence, RunConfig
from flows.stages.base import published_input
from flows.stages.dates import SEQUENCES as KEY
from flows.stages.dates import day_before, require_day
from flows.stages.generate.sequence_times import (
    given_along,
    source_times,
    step_of,
    times_of_sequence,
)
from pipeline.arrays import FloatArray
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

STATES = "states"
SAME = 1e-6  # of the range of a covariate: so near are equal values


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The noise of days before a branch: of one realization of the sequences that it comes from.

    Attributes:
        words: what its addresses say after the date.
        last: its last day, counted from the first day of the branch, so below zero.
    """

    seed: int
    realization: int
    words: str
    last: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginning:
    """What sequences begin with.

    Attributes:
        days: whitened days that they go on from, the last one last, (day, channel, coefficient);
            none if the first day is drawn by itself.
        streams: noise of the days before a branch, the earliest first.
    """

    days: FloatArray
    streams: tuple[Stream, ...] = ()

    @property
    def words(self) -> str:
        """What the addresses of the noise say after the date: sequences of one seed share it, and
        so do branches that are branched as often."""
        return f"in branch {len(self.streams)}" if self.streams else "in sequence"

    @property
    def digest(self) -> str:
        """Of all that the days to come follow from; empty for a draw."""
        if not len(self.days):
            return ""
        told = json.dumps([asdict(one) for one in self.streams]) if self.streams else ""
        return sha256(self.days.tobytes() + told.encode()).hexdigest()

    def stream(self, seed: int) -> dict[str, Any]:
        """What a branch of these sequences has to know, as attributes of their states."""
        return {"seed": seed, "words": self.words, "before": [asdict(one) for one in self.streams]}


def beginning_of(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> Beginning:
    """What the sequences that are asked for begin with.

    Raises:
        ConfigError: If there is no such day, or they do not follow it.
    """
    if asked.from_ == DRAW:
        whitened = artifacts.open_published(layout, "whitened")["x"]
        return Beginning(days=np.empty((0, *whitened.shape[1:]), np.float32))
    if asked.parent is None:
        return Beginning(days=_days_of_source(config, layout, asked))
    return _branch(config, layout, asked, *asked.parent)


def _days_of_source(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> FloatArray:
    whitened = _of_one_scenario(config, layout, asked)
    step, last = step_of(layout), day_before(asked, source_times(layout))
    times = whitened["time"].values
    require_day(asked, last, whitened["time"])
    place, known = int(np.flatnonzero(times == last)[0]), 1
    while known < config.sequence.past and place >= known:
        if times[place - known] != last - known * step:
            break
        known += 1
    days: FloatArray = whitened.isel(time=slice(place + 1 - known, place + 1)).values
    return days


def _of_one_scenario(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> xr.DataArray:
    """The whitened days of the source; of several scenarios, those of the one whose covariates on
    the day that is gone on from are those of the sequence's first day.

    Raises:
        ConfigError: If no scenario has them.
    """
    whitened = artifacts.open_published(layout, "whitened")["x"]
    if "member" not in whitened.coords:
        return whitened
    fields = artifacts.open_published(layout, "fields")
    last, times = (
        day_before(asked, source_times(layout)),
        times_of_sequence(config, layout, asked)["time"],
    )
    given, names = given_along(config, asked, times), config.source.covariate_names
    first = {name: float(np.ravel(given[name])[0]) for name in names if name in given}
    member, known = fields["member"].to_numpy(), list[str]()
    for row in np.flatnonzero(fields["time"].values == last):
        there = {name: float(fields[name][row]) for name in names}
        scale = {name: float(np.ptp(fields[name].to_numpy())) for name in names}
        away = [abs(there[name] - first.get(name, np.inf)) / scale[name] for name in names]
        if max(away) <= SAME:
            return whitened.isel(time=np.flatnonzero(member == member[row]))
        known.append(", ".join(f"{name} = {value:g}" for name, value in there.items()))
    words = f"on it the scenarios have {'; '.join(known)}" if known else "no scenario has that day"
    raise ConfigError(
        f"{KEY}.from: {asked.from_} is a day of several scenarios, and the sequence has the "
        f"covariates {first or 'of none'}; {words}. Give generate.sequences.covariates those of "
        "the scenario that is gone on from"
    )


def _branch(
    config: RunConfig, layout: StoreLayout, asked: DrawnSequence, root: str, label: str
) -> Beginning:
    states = artifacts.published(StoreLayout(root) if root else layout, STATES, label)
    if states is None or "stream" not in states.attrs:
        words = "is not published" if states is None else "was drawn by an older version"
        raise ConfigError(f"{KEY}.of: {asked.of} {words}; run `spherescore generate` for it first")
    normals = published_input(layout, "normals")
    if states.attrs["normals_digest"] != normals.digest:
        raise ConfigError(
            f"{KEY}.of: {asked.of} was drawn with other normals "
            f"({str(states.attrs['normals_digest'])[:16]}) than this run has "
            f"({normals.digest[:16]}); branch from a run of the same fields, split and spectral"
        )
    x = artifacts.open_artifact(states)["x"]
    there = x.sizes["realization"]
    if asked.realization >= there:
        raise ConfigError(
            f"{KEY}.realization: {asked.of} has realizations 0 to {there - 1}, not "
            f"{asked.realization}"
        )
    last, times, past = (
        day_before(asked, source_times(layout)),
        x["time"].values,
        config.sequence.past,
    )
    place = int(np.argmax(times == last))
    if times[place] != last or place + 1 < past:
        raise ConfigError(
            f"{KEY}.from: {asked.of} has days {str(times[0])[:10]} to {str(times[-1])[:10]}, and a "
            f"branch goes on from {past} of them; it has not those up to {asked.from_}"
        )
    mine = states.attrs["stream"]
    earlier = [Stream(**one | {"last": one["last"] - place - 1}) for one in mine["before"]]
    parent = Stream(seed=mine["seed"], realization=asked.realization, words=mine["words"], last=-1)
    days = x.isel(realization=asked.realization, time=slice(place + 1 - past, place + 1)).values
    return Beginning(days=days, streams=(*earlier, parent))
