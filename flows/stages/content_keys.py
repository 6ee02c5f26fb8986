"""Content keys: what each stage would make now, and all that this depends on.

A key is made of the configuration that the stage reads, the digests of its inputs in the store, and
the code that computes it; so it can be asked only once the stages before it are published. Keys
stand apart from the stages because they are asked far more often than work is done: `status`, and a
run with nothing to do, import no torch for them.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import xarray as xr

from flows.config.schema import DrawnSequence, RunConfig, Source
from flows.processes.code_cache import kept
from flows.stages.base import published_input
from flows.stages.block_degree import block_degree
from flows.stages.conditions import asked_times, condition_of
from flows.stages.splits import SPLITS, part_of, spans_of
from storage.artifacts.history import digest_of_times, latest_of_family
from storage.artifacts.layout import StoreLayout
from storage.artifacts.publishing import (
    Published,
    code_digest,
    content_key,
    open_artifact,
    published,
)
from storage.guards.named_files import resolve
from storage.sources.source_files import source_digest

__all__ = [
    "REPORTED",
    "SCHEMAS",
    "code_of",
    "conditioned_key",
    "digest_of_source",
    "ensemble_key",
    "frozen_normals",
    "ingest_key",
    "key_of",
    "lineage",
    "normals_family",
    "observed_key",
    "sequence_key",
    "source_files",
    "training_family",
    "training_parent",
    "whitened_family",
]

# By stage, raised when the meaning of its artifact changes.
SCHEMAS: Mapping[str, int] = {
    "ingest": 2,
    "preprocess": 5,
    "train": 1,
    "generate": 3,
    "verify": 2,
    "condition": 1,
}

# No part of what is computed: where and when that is done, how it is kept, what is shown of it.
MACHINERY = (
    *("flows.cli", "flows.cluster", "flows.config", "flows.deployments", "flows.errors"),
    *("flows.plan", "flows.processes", "flows.progress", "flows.run"),
    *("flows.stages.base", "flows.stages.content_keys", "flows.stages.dates"),
    *("storage.errors", "storage.sources.inspection", "storage.places"),
    *(
        f"storage.artifacts.{name}"
        for name in (
            *("audit", "garbage", "history", "in_units", "keys", "layout", "lock", "pointers"),
            *("published", "publishing", "reading", "sealed"),
        )
    ),
)

REPORTED = ("fields", "normals", "whitened", "checkpoints", "ensemble")  # what a report is about
SAMPLER = tuple(f"generate.{name}" for name in ("integrator", "evaluations", "grid_exponent"))


def key_of(stage: str, config: RunConfig, layout: StoreLayout) -> str:
    """The content key of what the stage of this name would make now.

    Raises:
        IncompleteArtifact: If an input of the stage is not published.
    """
    return _KEYS[stage](config, layout)


def code_of(module: str) -> str:
    """Digest of what a module computes, with all that it takes from the house."""
    return kept(f"{module} without {MACHINERY}", lambda: code_digest([module], beyond=MACHINERY))


def ingest_key(config: RunConfig, digest: str) -> str:
    """Content key of fields made from source files of this digest."""
    read = ["variables", "units", "missing", "valid_range", "fill", "static", "covariates"]
    read += ["dims", "select", "samples", "period", "drop", "stamps", "healpix", "group"]
    read += ["grib", "zarr_fill", "band"]
    return content_key(
        stage="ingest",
        schema=SCHEMAS["ingest"],
        config=config.subset(*(f"source.{name}" for name in read), "source.allow_gaps")
        | _forcings(config.source),
        inputs={"source": digest},
        code=code_of("flows.stages.ingest.ingest"),
    )


def _forcings(source: Source) -> dict[str, Any]:
    """Which files are of which scenario, and its covariates; where files lie does not count."""
    if not source.scenarios:
        return {}
    table = {
        one.name: [len(resolve(one.paths)), sorted(one.covariates.items())]
        for one in source.scenarios
    }
    return {"scenarios": list(table.items())}


def digest_of_source(source: Source) -> str:
    """sha256 of the contents of all files of the source, covariates included."""
    return source_digest(source_files(source))


def source_files(source: Source) -> tuple[str, ...]:
    """Paths and patterns of all files that the fields are made of."""
    return (*source.files, *source.covariate_files)


def ensemble_key(
    config: RunConfig,
    layout: StoreLayout,
    kind: str,
    times: xr.Dataset,
    realizations: int | None,
    label: str = "",
) -> str:
    """Content key of an ensemble at conditioned times; without realizations that of its family.

    Args:
        label: name of the scenario that it is of; nothing else belongs to it then.
    """
    whole = kind == "ensemble" and realizations is not None and not label
    return content_key(
        stage=f"generate {kind}",
        schema=SCHEMAS["generate"],
        config=config.subset("run.seed", *SAMPLER, "generate.microbatch")
        | {
            "times": [str(time) for time in times["time"].values],
            "conditions": json.dumps(times["condition"].values.tolist()),
            "realizations": realizations,
            "grid": config.generate.grid if kind == "ensemble" else "source",
            # Units know neither of these, so a family does not depend on them.
            "attributes": dict(config.generate.attributes) if realizations is not None else {},
            "series": config.generate.series and realizations is not None,
            **_with_others(config, whole),
        },
        inputs=_digests(layout, "checkpoints", "normals") | (_branched(config) if whole else {}),
        code=code_of("flows.stages.generate.generate"),
    )


def _branched(config: RunConfig) -> dict[str, str]:
    """Digests of what sequences are made of besides: other runs that they are branches of, and
    series of covariates."""
    found = {}
    for one in config.generate.sequences:
        root, label = one.parent or ("", "")
        if root:
            states = published(StoreLayout(root), "states", label)
            found[one.of] = "" if states is None else states.digest
        series = [value for value in one.covariates.values() if isinstance(value, str)]
        found |= {file: source_digest([file]) for file in series}
    return found


def _with_others(config: RunConfig, whole: bool) -> dict[str, Any]:
    """An ensemble that is asked for with sequences and scenarios is not there without them."""
    asked = config.subset("generate.sequences", "generate.scenarios") if whole else {}
    return {name.partition(".")[2]: value for name, value in asked.items() if value}


def sequence_key(
    config: RunConfig,
    layout: StoreLayout,
    asked: DrawnSequence,
    kind: str,
    begun: str,
    *,
    family: bool = False,
) -> str:
    """Content key of sequences, or of their family: those that share units.

    Args:
        asked: without its name, which is no part of what is drawn.
        kind: "states", or "sequences" for the fields that are made of them.
        begun: digest of the days that they begin with.
        family: without how many there are, and how long they are.
    """
    sizes = {} if family else {"days": asked.days, "realizations": asked.realizations}
    covariates = _covariates_of(config, asked)
    sampled = config.subset(*SAMPLER) if config.learns_sequences else {}
    made_of = ("checkpoints", "normals") if config.learns_sequences else ("normals",)
    fields = kind == "sequences"
    return content_key(
        stage=f"generate {kind}",
        schema=SCHEMAS["generate"],
        config=config.subset("run.seed", "generate.microbatch")
        | {"learned": config.learns_sequences}
        | covariates
        | sampled
        | {"start": asked.start, "from": asked.from_, **sizes}
        | ({"grid": config.generate.grid} if fields else {})
        | ({"attributes": dict(config.generate.attributes)} if fields and not family else {}),
        inputs={**_digests(layout, *made_of), "begun": begun},
        code=code_of("flows.stages.generate.sequences"),
    )


def _covariates_of(config: RunConfig, asked: DrawnSequence) -> dict[str, Any]:
    """Covariates of sequences: numbers, and digests of the files of series."""
    own = {
        name: source_digest([value]) if isinstance(value, str) else value
        for name, value in asked.covariates.items()
    }
    return config.subset("generate.covariates") | ({"covariates": own} if own else {})


SOURCE_READ = ("units", "missing", "dims", "select", "stamps", "healpix", "group", "grib", "band")


def observed_key(config: RunConfig, layout: StoreLayout) -> str:
    """Content key of what is given, as the model's variables."""
    about = ("observations", "fields", "coarse", "coarse_lmax", "error", "withheld")
    return content_key(
        stage="condition observed",
        schema=SCHEMAS["condition"],
        config=config.subset(
            "run.seed",
            "generate.covariates",
            *(f"source.{name}" for name in SOURCE_READ),
            *(f"condition.{name}" for name in about[3:]),
        )
        | {name: bool(getattr(config.condition, name)) for name in about[:3]},
        inputs={
            **_digests(layout, "normals", "fields"),
            **{name: _digest_of_given(config, name) for name in about[:3]},
        },
        code=code_of("flows.stages.condition.observed"),
    )


def _digest_of_given(config: RunConfig, name: str) -> str:
    """sha256 of what the files of one kind hold; nothing where none are named."""
    paths = getattr(config.condition, name)
    return source_digest(paths) if paths else ""


def conditioned_key(config: RunConfig, layout: StoreLayout, *, family: bool = False) -> str:
    """Content key of draws given what is known, or of their family: those that share units."""
    asked = ["condition.event", "generate.microbatch", "generate.covariates"]
    if config.draws_by_network:
        asked += ["condition.particles", "condition.evaluations", "generate.grid_exponent"]
    if config.condition.event is not None:
        asked.append("generate.times")
    if not family:
        asked += ["condition.realizations", "generate.attributes"]
    observes, part = config.condition.observes, "draws"
    given = {"observed": observed_key(config, layout)} if observes else {}
    if config.condition.gaps:
        asked.append("condition.gaps")
        given |= _digests(layout, "fields")
        part = "filling"
    elif config.conditions_sequences:
        part = "spells"
    return content_key(
        stage="condition",
        schema=SCHEMAS["condition"],
        config=config.subset("run.seed", *asked),
        inputs={**_digests(layout, "checkpoints", "normals"), **given},
        code=code_of(f"flows.stages.condition.{part if family else 'condition'}"),
    )


def _ingest(config: RunConfig, layout: StoreLayout) -> str:
    return ingest_key(config, digest_of_source(config.source))


def frozen_normals(config: RunConfig, layout: StoreLayout) -> Published | None:
    """Older normals that are kept for the fields there are now; None if they are to be fitted.

    Normals of before are kept if `spectral.statistics` says so and only the fields differ.
    """
    if config.spectral.statistics != "frozen":
        return None
    known = latest_of_family(layout, "normals", normals_family(config))
    fields = published_input(layout, "fields")
    return None if known is None or known.attrs["fitted_on"] == fields.digest else known


def normals_family(config: RunConfig) -> str:
    """What normals follow from but the fields."""
    return _preprocess_key(config, {})


def whitened_family(config: RunConfig, normals: Published) -> str:
    """What a unit of whitened fields follows from but the fields at its times."""
    return _preprocess_key(config, {"normals": normals.digest})


def _preprocess(config: RunConfig, layout: StoreLayout) -> str:
    inputs = _digests(layout, "fields")
    if frozen := frozen_normals(config, layout):
        inputs["normals"] = frozen.digest
    return _preprocess_key(config, inputs)


def _preprocess_key(config: RunConfig, inputs: Mapping[str, str]) -> str:
    return content_key(
        stage="preprocess",
        schema=SCHEMAS["preprocess"],
        config=config.subset(
            "source.variables",
            "source.transform",
            "source.bounds",
            "source.winds",
            "source.trend",
            "source.fill",
            "source.static",
            "source.covariates",
            "split.train",
            "split.validation",
            "split.train_members",
            "split.validation_members",
            "spectral.lmax",
            "spectral.reference",
            "spectral.joint",
            "spectral.tail",
            "spectral.harmonics",
            "sequence.past",
        )
        | {"block_degree": block_degree(config)},
        inputs=inputs,
        code=code_of("flows.stages.preprocess.preprocess"),
    )


def training_parent(config: RunConfig, layout: StoreLayout) -> Published | None:
    """The training that one with `train.start = "last"` goes on from, if there is one.

    It was made with the same normals, so that its weights mean the same, and for a network of the
    same shape.
    """
    if config.train.start != "last":
        return None
    last = published(layout, "checkpoints")
    if last is None or last.attrs.get("lineage") != lineage(config, layout):
        return None
    return last


def lineage(config: RunConfig, layout: StoreLayout) -> str:
    """What must agree for the weights of one training to be the start of another."""
    shape = config.subset("train.model", "train.width", "train.blocks", "spectral.baseline")
    shape |= {"learns_sequences": config.learns_sequences}
    return content_key(
        stage="lineage",
        schema=SCHEMAS["train"],
        config=shape,
        inputs=_digests(layout, "normals"),
        code=code_of("flows.stages.trained_model"),
    )


def training_family(config: RunConfig, layout: StoreLayout) -> str:
    """What a training follows from but the one that it goes on from."""
    return _train_key(config, layout, {})


def _train(config: RunConfig, layout: StoreLayout) -> str:
    if config.train.start == "scratch":
        return _train_key(config, layout, {})
    family = training_family(config, layout)
    done = latest_of_family(layout, "checkpoints", family)
    if done is not None:  # whatever it started from
        return done.key
    parent = training_parent(config, layout)
    return _train_key(config, layout, {"start": parent.digest} if parent else {})


def _read_in_training(config: RunConfig, layout: StoreLayout) -> str:
    """Digest of the whitened fields that a training reads; days beyond its periods are not."""
    whitened = published_input(layout, "whitened")
    dataset = open_artifact(whitened)
    parts = []
    for name in SPLITS[:2]:
        places = spans_of(dataset, config.split, name)
        rows = condition_of(part_of(dataset, config.split, name))
        parts += [digest_of_times(whitened, place) for place in places]
        parts.append(sha256(rows.tobytes()).hexdigest())
    return sha256("".join(parts).encode()).hexdigest()


def _train_key(config: RunConfig, layout: StoreLayout, start: Mapping[str, str]) -> str:
    read = ("model", "minutes", "steps", "batch", "learning_rate", "width", "blocks", "dropout")
    known = config.to_dict()["train"]
    # J_G on validation times is about the configured sampler if that is GME
    # (flows/stages/trained_model).
    certified = SAMPLER if config.generate.integrator == "gme" else ()
    return content_key(
        stage="train",
        schema=SCHEMAS["train"],
        config=config.subset(
            "run.seed",
            "split.train",
            "split.validation",
            "split.train_members",
            "split.validation_members",
            "spectral.baseline",
            *(f"train.{name}" for name in read if name in known),
            *certified,
        )
        | {"learns_sequences": config.learns_sequences},
        inputs={
            **_digests(layout, "normals"),
            "whitened": _read_in_training(config, layout),
            **start,
        },
        code=code_of("flows.stages.train.train"),
    )


def _generate(config: RunConfig, layout: StoreLayout) -> str:
    times = asked_times(config, layout)
    return ensemble_key(config, layout, "ensemble", times, config.generate.realizations)


def _verify(config: RunConfig, layout: StoreLayout) -> str:
    return content_key(
        stage="verify",
        schema=SCHEMAS["verify"],
        config=config.subset("run.seed", "split", "verify", *SAMPLER, "generate.microbatch"),
        inputs=_digests(layout, *REPORTED) | _drawn_states(config, layout),
        code=code_of("flows.stages.verify.verify"),
    )


def _drawn_states(config: RunConfig, layout: StoreLayout) -> dict[str, str]:
    """Digest of the sequences that a report is about, if it is about some."""
    told = config.generate.reported
    states = published(layout, "states", told.name) if told else None
    return {} if states is None else {"states": states.digest}


def _digests(layout: StoreLayout, *kinds: str) -> dict[str, str]:
    return {kind: published_input(layout, kind).digest for kind in kinds}


_KEYS: Mapping[str, Callable[[RunConfig, StoreLayout], str]] = {
    "ingest": _ingest,
    "preprocess": _preprocess,
    "train": _train,
    "generate": _generate,
    "verify": _verify,
    "condition": conditioned_key,
}
