"""Stage 2: what the model need not learn is measured on the training split and taken away.

Reads `fields`; publishes `normals`, then `whitened`, both under one key. Passes over blocks
of times, on the cluster; sums and small arrays come back, never a series:

    training times                 seasonal moments      -> climatology, scale, mask
    training and validation times  squares of anomalies  -> how the scale changes in time
                                   squares in holes      -> scale of masked cells
    training and validation times  coefficient moments   -> spectra, reference, Gaussian baselines
    all times                      whitened coefficients, written unit by unit

normals.zarr: see flows/stages/preprocess/normals.

whitened.zarr
    x(time, channel, coefficient) float32; coordinates phase(time) [rad], degree, order, and
    covariates(time, covariate) in standard units where the source has some

Only training times inform the statistics, but for how much the m-block baseline is
shrunk, which is chosen on validation times.
"""

import json
import math
import time as clock
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.base import Receipt, published_input
from flows.stages.block_degree import block_degree_words
from flows.stages.conditions import covariate_variables, standard_covariates
from flows.stages.content_keys import frozen_normals, key_of, normals_family, whitened_family
from flows.stages.preprocess.assemble import normals_dataset
from flows.stages.preprocess.block_sums import rounding, write_whitened
from flows.stages.preprocess.climatology import fit_removed
from flows.stages.preprocess.fitting import Fitting, block_times
from flows.stages.preprocess.laws import fit_laws, observe
from flows.stages.preprocess.reference import chosen_words
from flows.stages.preprocess.sequence_law import with_sequence_law
from pipeline.fields.precision import precision_for
from pipeline.fields.scale import smoothing_words
from pipeline.fields.seasons import season_notes, unseen_stretches
from pipeline.fields.whitening import to_whitened
from storage.artifacts import publishing as artifacts
from storage.artifacts.history import marks_of_times, times_of_shards
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "preprocess"

CHUNK_BYTES = 1 << 20  # of x: what a training that does not fit into memory reads for a few fields


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Publish `normals` and `whitened`; what an interrupted run has published or written stays."""
    started = clock.monotonic()
    content = key_of(STAGE, config, layout)
    source = published_input(layout, "fields")
    normals = artifacts.find(layout, "normals", content)
    if normals is None and (frozen := frozen_normals(config, layout)):
        normals = _keep_normals(layout, content, frozen)
    elif normals is None:
        fitting = Fitting.of(config, source, client, progress)
        normals = _publish_normals(layout, content, fitting)
    else:
        artifacts.point_name(layout, normals)
    whitened = _publish_whitened(
        config, layout, content, source, normals, client, progress, started
    )
    return Receipt.of(STAGE, whitened, seconds=clock.monotonic() - started)


def _publish_normals(layout: StoreLayout, content: str, fitting: Fitting) -> artifacts.Published:
    config, source, fields = fitting.config, fitting.source, fitting.fields
    removed = fit_removed(fitting)
    anomalies = removed.anomalies(fitting)
    observed = observe(fitting, anomalies)
    laws = fit_laws(config, observed, fitting.lmax)
    kept = observed.variance_kept(removed.pairs, fitting.lmax)
    open_seasons = season_notes(fitting.phase, fitting.harmonics)
    figures = {
        **laws.reference.figures(anomalies.channels),
        **({"seasons": open_seasons} if open_seasons else {}),
        "scale": {
            name: smoothing_words(to, removed.trend)
            for name, to in zip(removed.transforms, removed.smoothed_to, strict=True)
        },
        "baselines": chosen_words(laws.choices),
        **({"block degree": few} if (few := block_degree_words(config)) else {}),
        "variance_kept": {
            name: round(float(part), 4) for name, part in zip(removed.transforms, kept, strict=True)
        },
    }
    dataset = normals_dataset(config, fields, removed, anomalies, observed, laws)
    dataset = dataset.merge(removed.trend.to_variables())
    covariates = config.source.covariate_names
    dataset = dataset.merge(covariate_variables(fields, covariates, config.split))
    dataset = dataset.assign_attrs(block_degree=fitting.degree)  # the law of the tail needs it
    dataset = with_sequence_law(dataset, fitting, anomalies)
    whitening = replace(anomalies, factor=laws.reference.factor)
    (single,) = fitting.sums(rounding, whitening, spans=fitting.train[:1], label="precision")
    dataset.attrs |= {
        "samples": observed.fitted_on.samples,
        "reference": json.dumps(figures["reference"]),
        "precision": precision_for(single),
        "float32_error": single,
        "unseen": json.dumps(unseen_stretches(fitting.phase)),
    }
    artifacts.create(layout.artifact("normals", content), dataset, chunks={}, shards={})
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
    if config.source.covariate_names:
        series = {name: fields[name].to_numpy() for name in config.source.covariate_names}
        rows = standard_covariates(series, fields.sizes["time"], constants)
        template = template.assign_coords(
            covariate=constants["covariate"], covariates=(("time", "covariate"), rows)
        )
    times = _unit_times(block_times(fields, template.sizes["channel"]), times_of_shards(source))
    chunk = _largest_divisor(times, CHUNK_BYTES // template["x"].isel(time=0).nbytes)
    shard = {"time": times}

    def marked(units: list[artifacts.Unit]) -> list[artifacts.Unit]:
        marks = marks_of_times(source, [unit.region["time"] for unit in units])
        return [replace(unit, mark=mark) for unit, mark in zip(units, marks, strict=True)]

    store = lay_out(
        layout,
        "whitened",
        content,
        whitened_family(config, normals),
        template,
        chunks={"time": chunk},
        shards=shard,
        compress=False,
        marked=marked,
    )
    write, done = partial(write_whitened, store.path, source, normals), len(store.there)
    written = map_units(client, write, store.missing, progress, label="whitening", done=done)
    provenance = {
        "figures": normals.attrs["figures"],
        "fields_digest": source.digest,
        "normals_digest": normals.digest,
        "seconds": clock.monotonic() - started,
    }
    return store.publish(provenance, written)


def _unit_times(most: int, shard: int) -> int:
    """Times of a unit, at most `most`: whole shards of the fields, or an even part of one."""
    if shard > most:
        return _largest_divisor(shard, most)
    return shard * 2 ** int(math.log2(most // shard))


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(1, min(number, most)), 0, -1) if number % n == 0)
