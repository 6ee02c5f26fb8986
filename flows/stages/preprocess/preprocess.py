"""Stage 2: what the model need not learn is measured on the training split and taken away.

Reads `fields`; publishes `normals`, then `whitened`, both under one key. Passes over blocks
of times, on the cluster; sums and small arrays come back, never a series:

    training times                 seasonal moments      -> climatology, scale, mask
                                   squares in holes      -> scale of masked cells
    training and validation times  coefficient moments   -> spectra, reference, Gaussian baselines
    all times                      whitened coefficients, written unit by unit

normals.zarr: see flows/stages/preprocess/normals.

whitened.zarr
    x(time, channel, coefficient) float32; coordinates phase(time) [rad], degree, order, and
    covariates(time, covariate) in standard units where the source has some

Only training times inform the statistics, but for how much the m-block and eof baselines are
shrunk, which is chosen on validation times.
"""

import itertools
import json
import math
import time as clock
from collections.abc import Mapping
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import ConfigError, Period, RunConfig, within
from flows.progress import Progress
from flows.stages.base import Receipt, published_input
from flows.stages.conditions import covariate_variables, standard_covariates, trend_of
from flows.stages.content_keys import frozen_normals, key_of, normals_family, whitened_family
from flows.stages.preprocess.block_sums import (
    Span,
    coefficient_moments,
    rounding,
    seasonal_moments,
    squares_in_holes,
    write_whitened,
)
from flows.stages.preprocess.marginals import pointwise_maps, with_atoms
from flows.stages.preprocess.normals import baseline_variables, normals_dataset, tail_variables
from flows.stages.preprocess.reference import Judged, chosen_words
from flows.stages.preprocess.wind_pairs import wind_pairs
from pipeline.errors import UnusableData
from pipeline.fields.climatology import Climatology
from pipeline.fields.pointwise import Pointwise
from pipeline.fields.precision import precision_for
from pipeline.fields.standardisation import Normals
from pipeline.fields.trend import Trend
from pipeline.fields.whitening import to_whitened
from pipeline.gaussian.channel_covariance import dependent
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.fit import BASELINES, choose, choose_shrinkage, fit, refuse_sizes
from pipeline.sphere.named_grids import grid_of
from pipeline.sphere.stacked import Pairs, channel_names, in_pairs
from storage.artifacts import publishing as artifacts
from storage.artifacts.history import marks_of_times, times_of_shards
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "preprocess"

BLOCK_BYTES = 1 << 26  # of float64 fields, that a worker holds a few times over
LARGEST_BLOCK = 256  # times
CHUNK_BYTES = 1 << 20  # of x: what a training that does not fit into memory reads for a few fields
SPANS = 8  # sums come back from so many stretches of a split, whatever the number of workers


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Publish `normals` and `whitened`; what an interrupted run has published or written stays."""
    started = clock.monotonic()
    content = key_of(STAGE, config, layout)
    source = published_input(layout, "fields")
    normals = artifacts.find(layout, "normals", content)
    if normals is None and (frozen := frozen_normals(config, layout)):
        normals = _keep_normals(layout, content, frozen)
    elif normals is None:
        normals = _publish_normals(config, layout, content, source, client, progress)
    else:
        artifacts.point_name(layout, normals)
    whitened = _publish_whitened(
        config, layout, content, source, normals, client, progress, started
    )
    return Receipt(
        stage=STAGE,
        kind="whitened",
        path=str(whitened.path),
        key=content,
        digest=whitened.digest,
        seconds=clock.monotonic() - started,
        figures=dict(whitened.attrs["figures"]),
    )


def _publish_normals(
    config: RunConfig,
    layout: StoreLayout,
    content: str,
    source: artifacts.Published,
    client: "Client",
    progress: Progress,
) -> artifacts.Published:
    fields = artifacts.open_artifact(source)
    names = config.source.variables
    lmax, block = _checked_lmax(config, fields), _block_times(fields, len(names))
    tail = _checked_tail(config, fields)
    _refuse_sizes(len(names), "lmax" if tail == lmax else "tail", tail)
    train = _spans(fields, "train", config.split.train, block)
    validation = _spans(fields, "validation", config.split.validation, block)

    pairs = wind_pairs(config, fields)
    maps = pointwise_maps(config, source, fields, block, train, client, progress)
    trend = trend_of(fields, config)
    seasonal = partial(seasonal_moments, source, maps, trend, block)
    sums = reduce(add, map_units(client, seasonal, train, progress, label="climatology"))
    transforms, sums = with_atoms(maps, sums)
    climatology = sums.fit().with_winds(pairs)
    _refuse_masks(config, transforms, climatology)
    anomalies = _standardising(fields, transforms, pairs, trend, climatology, lmax, tail)
    if climatology.mask.any():
        squares = partial(squares_in_holes, source, anomalies, block)
        filled = reduce(add, map_units(client, squares, train, progress, label="holes"))
        climatology = climatology.with_holes(in_pairs(filled / sums.count, pairs))
        anomalies = _standardising(fields, transforms, pairs, trend, climatology, lmax, tail)
    moments = partial(coefficient_moments, source, anomalies, block)
    parts = map_units(client, moments, train + validation, progress, label="spectra")
    spectral, energies, remainders = zip(*parts[: len(train)], strict=True)
    observed = reduce(add, spectral)
    chosen_on = reduce(add, (part for part, *_ in parts[len(train) :]))
    energy = in_pairs(reduce(add, energies), pairs) / observed.samples

    covariance = observed.channel_covariance()  # (degree, channel, channel)
    if same := dependent(covariance):
        raise UnusableData(
            f"{' and '.join(anomalies.channels[place] for place in same)} follow from each other: "
            "one is a linear combination of the others, so it says nothing new. Leave one of them "
            "out of source.variables"
        )
    data, beyond = covariance[: lmax + 1], np.linalg.cholesky(covariance[lmax + 1 :])
    power = np.diagonal(data, axis1=1, axis2=2)
    reference = Judged.configured(config, data, observed.samples)
    inverse = np.concatenate([reference.inverse, np.linalg.inv(beyond)])
    whitened, chosen_on = observed.mixed(inverse), chosen_on.mixed(inverse)
    drawn = {}
    if tail > lmax:
        shrinkage = choose_shrinkage(whitened, chosen_on)
        drawn = GaussianTail.fit(whitened, shrinkage, lmax).to_arrays()
        whitened, chosen_on = whitened.up_to(lmax), chosen_on.up_to(lmax)
    choices = {name: choose(name, whitened, chosen_on) for name in BASELINES}
    laws = {name: fit(name, whitened, choices[name]) for name in BASELINES}

    carried = in_pairs((2 * np.arange(lmax + 1) + 1) @ power, pairs)
    kept = carried / (4.0 * np.pi * energy)
    spectra = {
        "factor": reference.factor,
        "tail": beyond,
        "data": data.transpose(1, 2, 0),
        "remainder": np.sqrt(in_pairs(reduce(add, remainders), pairs) / observed.samples),
    }
    dataset = normals_dataset(
        config, fields, transforms, climatology, anomalies, spectra, reference.arrays()
    )
    dataset = dataset.assign(**tail_variables(drawn))
    for name, law in laws.items():
        dataset = dataset.assign(**baseline_variables(name, {**law.to_arrays(), **choices[name]}))
    figures = {
        **reference.figures(anomalies.channels),
        "baselines": chosen_words(choices),
        "variance_kept": {n: round(float(k), 4) for n, k in zip(transforms, kept, strict=True)},
    }
    covariates = tuple(config.source.covariates)
    dataset = dataset.merge(trend.to_variables())
    dataset = dataset.merge(covariate_variables(fields, covariates, config.split.train))
    path = layout.artifact("normals", content)
    dataset.attrs |= {"samples": observed.samples, "reference": json.dumps(figures["reference"])}
    error = partial(rounding, source, replace(anomalies, factor=reference.factor))
    (single,) = map_units(client, error, train[:1], progress, label="precision")
    dataset.attrs |= {"precision": precision_for(single), "float32_error": single}
    artifacts.create(path, dataset, chunks={}, shards={})
    provenance = {
        "figures": figures,
        "fields_digest": source.digest,
        "fitted_on": source.digest,
        "family": normals_family(config),
    }
    return artifacts.publish(layout, "normals", content, [], provenance)


def _keep_normals(
    layout: StoreLayout, content: str, frozen: artifacts.Published
) -> artifacts.Published:
    """Publish older normals once more, under the key of the fields there are now."""
    dataset = artifacts.open_artifact(frozen).load()
    artifacts.create(layout.artifact("normals", content), dataset, chunks={}, shards={})
    names = ("figures", "fields_digest", "fitted_on", "family")
    kept = artifacts.publish(
        layout, "normals", content, [], {name: frozen.attrs[name] for name in names}
    )
    assert kept.digest == frozen.digest
    return kept


def _publish_whitened(
    config: RunConfig,
    layout: StoreLayout,
    content: str,
    source: artifacts.Published,
    normals: artifacts.Published,
    client: "Client",
    progress: Progress,
    started: float,
) -> artifacts.Published:
    fields = artifacts.open_artifact(source)
    constants = artifacts.open_artifact(normals).load()
    template = to_whitened(fields.chunk(), constants)
    if config.source.covariates:
        series = {name: fields[name].to_numpy() for name in config.source.covariates}
        rows = standard_covariates(series, fields.sizes["time"], constants)
        template = template.assign_coords(
            covariate=constants["covariate"], covariates=(("time", "covariate"), rows)
        )
    times = _unit_times(_block_times(fields, template.sizes["channel"]), times_of_shards(source))
    chunk = _largest_divisor(times, CHUNK_BYTES // template["x"].isel(time=0).nbytes)
    shard = {"time": times}
    path = layout.artifact("whitened", content)
    family = whitened_family(config, normals)
    artifacts.create(
        path, template, chunks={"time": chunk}, shards=shard, compress=False, family=family
    )
    units = artifacts.plan_units({"time": template.sizes["time"]}, shard)
    marks = marks_of_times(source, [unit.region["time"] for unit in units])
    units = [replace(unit, mark=mark) for unit, mark in zip(units, marks, strict=True)]
    there, missing = artifacts.adopt_units(
        path, units, artifacts.donors(layout, "whitened", family)
    )
    write = partial(write_whitened, path, source, normals)
    written = map_units(client, write, missing, progress, label="whitening", done=len(there))
    provenance = {
        "figures": normals.attrs["figures"],
        "fields_digest": source.digest,
        "normals_digest": normals.digest,
        "seconds": clock.monotonic() - started,
    }
    return artifacts.publish(layout, "whitened", content, units, provenance, [*there, *written])


def _checked_lmax(config: RunConfig, fields: xr.Dataset) -> int:
    grid, lmax = grid_of(fields), config.spectral.lmax
    least = 4 if isinstance(config.spectral.reference, str) else 1
    if not least <= lmax <= grid.max_lmax:
        raise ConfigError(
            f"spectral.lmax: expected {least} to {grid.max_lmax}, what a {grid.describe()} grid "
            f"determines, got {lmax}"
        )
    return lmax


def _checked_tail(config: RunConfig, fields: xr.Dataset) -> int:
    lmax, grid = config.spectral.lmax, grid_of(fields)
    tail = lmax if config.spectral.tail is None else config.spectral.tail
    if not lmax <= tail <= grid.max_lmax:
        raise ConfigError(
            f"spectral.tail: expected {lmax} (spectral.lmax) to {grid.max_lmax}, what a "
            f"{grid.describe()} grid determines, got {tail}"
        )
    return tail


def _refuse_sizes(channels: int, setting: str, last: int) -> None:
    try:
        refuse_sizes(channels, last)
    except ValueError as error:
        raise ConfigError(f"spectral.{setting}: {error}") from error


def _block_times(fields: xr.Dataset, channels: int) -> int:
    times = BLOCK_BYTES // (8 * channels * grid_of(fields).size)
    return int(np.clip(times, 1, min(LARGEST_BLOCK, fields.sizes["time"])))


def _unit_times(most: int, shard: int) -> int:
    """Times of a unit, at most `most`: whole shards of the fields, or an even part of one."""
    if shard > most:
        return _largest_divisor(shard, most)
    return shard * 2 ** int(math.log2(most // shard))


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(1, min(number, most)), 0, -1) if number % n == 0)


def _spans(fields: xr.Dataset, name: str, period: Period, block: int) -> list[Span]:
    """At most `SPANS` stretches of the period's times, cut where blocks are."""
    known = within(period)
    index = fields.indexes["time"].slice_indexer(known.start, known.stop)
    if index.start >= index.stop:
        times = fields.indexes["time"]
        raise UnusableData(
            f"split.{name}: the data have no times from {period[0]} to {period[1]}; "
            f"they run from {times[0]} to {times[-1]}"
        )
    step = block * max(1, -(-(index.stop - index.start) // (SPANS * block)))
    edges = [index.start, *range((index.start // step + 1) * step, index.stop, step), index.stop]
    return [Span(start, stop) for start, stop in itertools.pairwise(edges)]


def _standardising(
    fields: xr.Dataset,
    transforms: Mapping[str, Pointwise],
    pairs: Pairs,
    trend: Trend,
    climatology: Climatology,
    lmax: int,
    tail: int,
) -> Normals:
    """Normals with a flat reference: they make scaled anomalies, not yet whitened."""
    return Normals(
        grid=grid_of(fields),
        channels=channel_names(tuple(transforms), pairs),
        variables=tuple(transforms),
        pairs=pairs,
        trend=trend,
        transforms=tuple(transforms.values()),
        climatology=climatology.coefficients,
        scale=climatology.scale,
        mask=climatology.mask,
        lmax=lmax,
        factor=np.tile(np.eye(len(transforms)), (tail + 1, 1, 1)),
        remainder=np.zeros_like(climatology.scale),
    )


def _refuse_masks(
    config: RunConfig, transforms: Mapping[str, Pointwise], climatology: Climatology
) -> None:
    for name, mask in zip(transforms, climatology.mask, strict=True):
        if mask.any() and config.source.fill_of(name) == "refuse":
            raise UnusableData(
                f"{name} is missing in {int(mask.sum())} of {mask.size} cells at all times; "
                f'declare source.fill = {{ {name} = "harmonic" }} to fill them for the transform'
            )
