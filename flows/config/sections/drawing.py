"""[generate], [verify]: what is drawn, and how much of it is scored."""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from flows.config.sections.checks import expanded, require, require_day, set_values
from flows.config.sections.source import NAMED, SCENARIO_NAME
from flows.config.strict import ConfigError, nearest, section

__all__ = ["DRAW", "DrawnScenario", "DrawnSequence", "Generate", "Verify"]

Integrator = Literal["ei", "mei", "gei", "gme", "gei-heun", "z-heun", "z-ab2", "z-rk4"]
EVALUATIONS_PER_STEP = {"gei-heun": 2, "z-heun": 2, "z-rk4": 4}  # one where not said
# Of ACDD-1.3: what only users know; the rest is found out (storage/conventions/attributes).
KNOWN_ATTRIBUTES = (
    *("title", "summary", "keywords", "id", "naming_authority", "institution", "project"),
    *("program", "license", "acknowledgement", "comment", "references", "metadata_link"),
    *("creator_name", "creator_email", "creator_url", "creator_type", "creator_institution"),
    *("publisher_name", "publisher_email", "publisher_url", "publisher_type"),
    *("publisher_institution", "contributor_name", "contributor_role", "contact"),
)
DRAW = "draw"  # where a sequence begins: in the law of single days
_SEQUENCES = re.compile(r"sequences(?:-([a-z0-9][a-z0-9-]*))?\.zarr")


@section
class DrawnSequence:
    """Days that follow each other: each is drawn given those before it."""

    start: str
    """First date."""
    days: int
    """Times, as far apart as those of the source."""
    realizations: int = 1
    """How many sequences; raising it draws only the new ones."""
    from_: str = DRAW
    """What they begin with: "draw", or the day before `start`: a forecast, or a branch."""
    name: str = ""
    """Tells several apart: they are found as sequences-NAME.zarr, without as sequences.zarr."""
    of: str = ""
    """Sequences that have the day `from`: "sequences.zarr", "runs/other/sequences-heat.zarr"."""
    realization: int = 0
    """Which of the sequences `of` is branched from."""
    covariates: Mapping[str, float | str] = field(default_factory=dict)
    """By name, a number or the file of a series; the rest is as `generate.covariates` says."""

    def __post_init__(self) -> None:
        key = "generate.sequences"
        given = {
            name: expanded(value, f"{key}.covariates.{name}") if isinstance(value, str) else value
            for name, value in self.covariates.items()
        }
        set_values(self, covariates=given)
        require_day(self.start, f"{key}.start")
        for name in ("days", "realizations"):
            value = getattr(self, name)
            require(value > 0, f"{key}.{name}", value, "a positive number")
        if self.from_ != DRAW:
            require_day(self.from_, f"{key}.from")
            before = self.from_ < self.start
            require(before, f"{key}.from", self.from_, f'"{DRAW}" or the day before start')
        plain = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}|", self.name) is not None
        require(plain, f"{key}.name", self.name, "lower-case letters, digits and hyphens")
        require(self.realization >= 0, f"{key}.realization", self.realization, "0 or more")
        if self.of:
            named = _SEQUENCES.fullmatch(self.of.rpartition("/")[2]) is not None
            require(named, f"{key}.of", self.of, "sequences.zarr or sequences-NAME.zarr of a run")
            dated = self.from_ != DRAW
            require(dated, f"{key}.from", self.from_, "the day that is branched from")
            set_values(self, of=expanded(self.of, f"{key}.of"))

    @property
    def parent(self) -> tuple[str, str] | None:
        """The root of the run, "" for this one, and the name of the sequences that a branch is of;
        None if it is no branch."""
        if not self.of:
            return None
        root, _, store = self.of.rpartition("/")
        found = _SEQUENCES.fullmatch(store)
        assert found is not None
        return root, found[1] or ""


@section
class DrawnScenario:
    """One more ensemble at the same dates and from the same noise, under other covariates."""

    name: str
    """Of the ensemble: it is found as ensemble-NAME.zarr."""
    covariates: Mapping[str, float]
    """Values of covariates; what is left out is as `generate.covariates` says."""

    def __post_init__(self) -> None:
        key = "generate.scenarios"
        named = re.fullmatch(SCENARIO_NAME, self.name) is not None
        require(named, f"{key}.name", self.name, NAMED)
        named = len(self.covariates) > 0
        require(named, f"{key}.{self.name}.covariates", {}, "the level that is drawn")


@section
class Generate:
    """What to draw: `realizations` fields for each calendar time, in microbatches of fixed size."""

    realizations: int
    """Fields drawn for each date; raising it draws only the new ones."""
    times: tuple[str, ...]
    """Dates, in order."""
    integrator: Integrator = "z-ab2"
    """Integrator of the probability flow."""
    evaluations: int = 6
    """Evaluations of the network for each draw."""
    grid_exponent: float = 2.2
    """How the times of the integrator crowd towards the data."""
    batch: int = 8
    """Realizations that one unit of work draws."""
    covariates: Mapping[str, float] = field(default_factory=dict)
    """Values of covariates that are given; others are free."""
    scenarios: tuple[DrawnScenario, ...] = ()
    """More ensembles, each under covariates of its own, paired with the others by their noise."""
    microbatch: int = 4
    """Draws that pass the network together; part of the ensemble's identity."""
    grid: str = "source"
    """Grid of the ensemble, such as "healpix:64"; that of the source by default."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """ACDD attributes that only you know, such as institution."""
    series: bool = False
    """Whether a copy is made that is chunked for series at few places."""
    sequences: tuple[DrawnSequence, ...] = ()
    """Sequences of days, drawn one after the other."""

    def __post_init__(self) -> None:
        for name in ("realizations", "evaluations", "grid_exponent", "batch", "microbatch"):
            value = getattr(self, name)
            require(value > 0, f"generate.{name}", value, "a positive number")
        each = EVALUATIONS_PER_STEP.get(self.integrator, 1)
        require(
            self.evaluations % each == 0,
            "generate.evaluations",
            self.evaluations,
            f"a multiple of {each}, what a step of {self.integrator} takes",
        )
        for name in self.attributes:
            if name not in KNOWN_ATTRIBUTES:
                raise ConfigError(
                    f"generate.attributes.{name} is no attribute that a user gives"
                    f"{nearest(name, KNOWN_ATTRIBUTES)}; those of ACDD-1.3 are: "
                    f"{', '.join(KNOWN_ATTRIBUTES)}"
                )
        if self.grid != "source":
            from pipeline.sphere.named_grids import grid_named

            try:
                grid_named(self.grid)
            except ValueError as error:
                raise ConfigError(f"generate.grid: {error}") from error
        self._require_sequences()
        names = [one.name for one in self.scenarios]
        require(len(set(names)) == len(names), "generate.scenarios.name", names, "each name once")
        require(len(self.times) > 0, "generate.times", self.times, "at least one date")
        for day in self.times:
            require_day(day, "generate.times")
        require(
            list(self.times) == sorted(set(self.times)),
            "generate.times",
            self.times,
            "dates in order, each once",
        )

    def _require_sequences(self) -> None:
        """Each has a name of its own, and what it is a branch of stands before it."""
        key, known = "generate.sequences", list[str]()
        for one in self.sequences:
            own = one.name not in known
            require(own, f"{key}.name", one.name, "another name for each, none for one of them")
            if one.parent is not None and not one.parent[0]:
                before = one.parent[1] in known
                require(before, f"{key}.of", one.of, "sequences of this run that stand before")
            known.append(one.name)

    @property
    def reported(self) -> DrawnSequence | None:
        """The sequences that a report is about: the first that begin with a draw."""
        return next((one for one in self.sequences if one.from_ == DRAW), None)


@section
class Verify:
    """How much is drawn for the scores: `realizations` for each of `dates` held-out days."""

    dates: int = 48
    """Held-out days that are scored."""
    realizations: int = 16
    """Fields drawn for each of them."""

    def __post_init__(self) -> None:
        require(self.dates >= 2, "verify.dates", self.dates, "at least 2")
        require(self.realizations >= 2, "verify.realizations", self.realizations, "at least 2")
