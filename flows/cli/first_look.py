"""What `spherescore init` shows of the fields that it found: a map, spectra, what a run costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from flows.config.schema import RunConfig
    from pipeline.arrays import FloatArray

ROWS = 12  # of the map; twice as many columns, each two letters wide
SHADES = " ░▒▓█"
BARS = "▁▂▃▄▅▆▇█"
BANDS = 16  # of a spectrum


def first_look(config: RunConfig) -> list[str]:
    """Lines about the middle time of a source, and about the run as it is configured.

    Raises:
        SourceError: If the source cannot be opened or read.
    """
    fields = _middle(config)
    lines = [f"{config.source.variables[0]} on {fields['time'].dt.strftime('%Y-%m-%d').item()}:"]
    lines += [f"  {row}" for row in text_map(fields, config.source.variables[0])]
    lines += ["", *(_about(fields, name) for name in config.source.variables), ""]
    return [*lines, *_costs(config)]


def text_map(fields: xr.Dataset, name: str) -> list[str]:
    """A map in letters, north above, from 180 degrees west; fuller is more."""
    import pipeline.fields.accessor  # noqa: F401  registers dataset.spherescore

    values = fields.spherescore.map(name, step=180.0 / ROWS).to_numpy()[::-1]
    edges = np.nanquantile(values, np.linspace(0, 1, len(SHADES) + 1)[1:-1])
    known = np.where(np.isnan(values), 0, np.digitize(values, edges))
    return ["".join(2 * SHADES[shade] for shade in row) for row in known]


def bars(values: FloatArray) -> str:
    """A line of bars, from the smallest value to the largest."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    share = (values - low) / (high - low) if high > low else np.zeros(len(values))
    return "".join(BARS[min(int(one * len(BARS)), len(BARS) - 1)] for one in np.nan_to_num(share))


def _middle(config: RunConfig) -> xr.Dataset:
    """The fields of the middle time, (lat, lon) or (cell)."""
    from flows.stages.ingest.ingest import how_to_open, paths_of
    from storage.sources.sources import open_source

    source = config.source
    fields, _ = open_source(
        paths_of(source), source.variables, check_values=False, **how_to_open(source)
    )
    return fields.isel(time=fields.sizes["time"] // 2).load()


def _about(fields: xr.Dataset, name: str) -> str:
    """The range of a variable, and how its power falls with the degree, both axes logarithmic."""
    field = fields[name]
    low, high = float(field.min()), float(field.max())
    unit = field.attrs.get("units", "")
    if bool(field.isnull().any()):
        shape = "(parts of it are missing)"
    else:
        power = fields.spherescore.spectrum(name).to_numpy()[1:]
        last = len(power)
        edges = np.unique(np.geomspace(1, last + 1, BANDS + 1).astype(int))
        means = [power[a - 1 : b - 1].mean() for a, b in pairwise(edges)]
        shape = f"power by degree, 1 to {last}: {bars(np.log(np.maximum(means, 1e-300)))}"
    return f"{name:<10}{low:>11.4g} to {high:<11.4g}{unit:<14}{shape}"


def _costs(config: RunConfig) -> Iterator[str]:
    from dask.utils import format_bytes

    from flows.plan.plan import duration, estimate

    stages = estimate(config)
    known = [one.seconds for one in stages if one.seconds is not None]
    took = f"about {duration(sum(known))}" if len(known) == len(stages) else "an unknown time"
    written = format_bytes(sum(one.bytes for one in stages))
    memory = format_bytes(max(one.memory_here for one in stages))
    yield f"A run takes {took}, writes up to {written} and needs {memory} of memory here;"
    longest = max(stages, key=lambda one: one.seconds or 0.0)
    if longest.seconds:
        yield f"most of the time is {longest.stage} ({duration(longest.seconds)})."
