"""What a stage of a run is: five modules with one shape, and the receipts they return.

A stage module offers

    STAGE: str                      its name, also the name of the module
    run(config, layout, client, progress) -> Receipt

A stage whose artifacts are published under its content key (flows/stages/content_keys) is skipped;
`run` is called otherwise, and itself redoes only the units that are missing.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

if TYPE_CHECKING:
    from distributed import Client

    from flows.config.schema import RunConfig
    from flows.progress import Progress
    from storage.artifacts.layout import StoreLayout
    from storage.artifacts.publishing import Published


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a stage returns across the task boundary: references and figures, never arrays.

    `figures` are the few numbers worth a line in the log, plain values by name; a stage that
    publishes them in its artifact's attribute `figures` gets them back when it is skipped.
    """

    stage: str
    kind: str
    path: str
    key: str
    digest: str
    seconds: float
    skipped: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, made: "Published", *, seconds: float, skipped: bool = False) -> Self:
        """The receipt of a stage for the artifact that its others lead to."""
        return cls(
            stage=stage,
            kind=made.kind,
            path=str(made.path),
            key=made.key,
            digest=made.digest,
            seconds=seconds,
            skipped=skipped,
            figures=dict(made.attrs.get("figures", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class StageModule(Protocol):
    STAGE: str

    def run(
        self,
        config: "RunConfig",
        layout: "StoreLayout",
        client: "Client | None",
        progress: "Progress",
    ) -> Receipt: ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One arrow of the data's way. The last of `kinds` is the one its receipt names.

    This is the one place that lists the stages in order; nothing is imported here but what
    `spherescore --help` may take.
    """

    name: str
    summary: str  # what it does, as commands, flows and deployments say it
    kinds: tuple[str, ...]
    on_cluster: bool = True
    in_child: bool = (
        False  # its module offers in_child(arguments, progress), for flows.processes.child
    )

    @property
    def module_name(self) -> str:
        return f"flows.stages.{self.name}.{self.name}"

    def module(self) -> StageModule:
        """Import the stage's module, only now: torch and its kin are slow to import."""
        return cast(StageModule, importlib.import_module(self.module_name))


STAGES = (
    Stage(
        name="ingest",
        summary="check the source and write fields.zarr",
        kinds=("fields",),
    ),
    Stage(
        name="preprocess",
        summary="fit what is taken away (normals.zarr) and write whitened.zarr",
        kinds=("normals", "whitened"),
    ),
    Stage(
        name="train",
        summary="train the score model",
        kinds=("checkpoints",),
        on_cluster=False,
        in_child=True,
    ),
    Stage(
        name="generate",
        summary="draw the ensemble",
        kinds=("ensemble",),
    ),
    Stage(
        name="verify",
        summary="score the model on held-out dates and write the report",
        kinds=("report",),
    ),
)
LAST = STAGES[-1].name
# Stages that are no part of a run but asked for by themselves, and the last one that they need.
ON_REQUEST = (
    Stage(
        name="condition",
        summary="draw fields given observations, coarse fields, an event, or days beside",
        kinds=("findings", "conditioned"),
    ),
)
NEEDED = "train"


def stages_until(name: str) -> Sequence[Stage]:
    """The stages up to one; for one on request those that it needs, and itself."""
    names = [stage.name for stage in STAGES]
    for stage in ON_REQUEST:
        if stage.name == name:
            return (*STAGES[: names.index(NEEDED) + 1], stage)
    return STAGES[: names.index(name) + 1]


def published_input(layout: "StoreLayout", kind: str) -> "Published":
    """The current artifact of a kind that a stage needs; says what to run if there is none."""
    from storage.artifacts import publishing as artifacts

    found = artifacts.published(layout, kind)
    if found is None:
        command = next(stage.name for stage in (*STAGES, *ON_REQUEST) if kind in stage.kinds)
        raise artifacts.IncompleteArtifact(
            f"{layout.name(kind)} is not published; run `spherescore {command}` first"
        )
    return found


def _is_named(layout: "StoreLayout", artifact: "Published", label: str) -> bool:
    from storage.artifacts.pointers import leads_to
    from storage.places.places import same_place

    target = leads_to(layout.name(artifact.kind, label))
    return target is not None and same_place(target, artifact.path)


def skipped(
    stage: Stage, key: str, layout: "StoreLayout", *, point_names: bool = True
) -> Receipt | None:
    """The receipt of work already done, or None when the stage has something to do.

    Decided from the store alone. An artifact that is published under `key` while its name points
    to another one (the configuration was changed and changed back) gets the name back, unless
    `point_names` is False: then such a stage counts as not done.
    """
    from storage.artifacts import publishing as artifacts

    found = []
    for kind in stage.kinds:
        published = artifacts.find(layout, kind, key)
        if published is None:
            return None
        found.append((published, ""))
    last = found[-1][0]
    for kind, keys in last.attrs.get("beside", {}).items():
        for label, other in keys.items():
            published = artifacts.find(layout, kind, other)
            if published is None:
                return None
            found.append((published, label))
    if not point_names and not all(_is_named(layout, *one) for one in found):
        return None
    if point_names:
        for one, label in found:
            artifacts.point_name(layout, one, label)
    return Receipt.of(stage.name, last, seconds=0.0, skipped=True)
