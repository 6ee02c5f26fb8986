"""[source]: the raw files, and what has to be declared about them."""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import WithJsonSchema

from flows.config.sections.checks import expanded, require, require_day, set_values
from flows.config.sections.periods import PAIR, Pair, Period
from flows.config.strict import ConfigError, nearest, section

__all__ = ["Scenario", "Source"]

Transform = Literal["identity", "cbrt", "log1p", "logit", "rank"]
Fill = Literal["refuse", "harmonic", "mask-ever"] | float
Stamps = Literal["kept", "day", "month", "day-end", "month-end"]
Range = Annotated[tuple[float, float], WithJsonSchema({**PAIR, "items": {"type": "number"}})]

ROLES = ("time", "lat", "lon", "level", "member", "lead", "cell")  # of dimensions of a source
ROLE_UNITS = (("units", "time"), ("units", "lead"))  # of coordinates, by their role
DATED = r"\d{4}-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?"  # a month, a day, a time
SCENARIO_NAME = r"[A-Za-z][A-Za-z0-9-]{0,39}"
NAMED = "letters, digits and hyphens, a letter first"
BOUNDED = 'source.transform "logit" or "rank" of a variable with bounds'


@section
class Scenario:
    """Files of the same model under one forcing, and the covariates that say which."""

    name: str
    """Tells scenarios apart, as "control" and "plus4K" do."""
    paths: tuple[str, ...]
    """Files or patterns of files, as `source.paths`."""
    covariates: Mapping[str, float | str] = field(default_factory=dict)
    """By name, a number, or a CSV or NetCDF file of a series; the same names in all scenarios."""

    def __post_init__(self) -> None:
        key = f"source.scenarios.{self.name}"
        named = re.fullmatch(SCENARIO_NAME, self.name) is not None
        require(named, "source.scenarios.name", self.name, NAMED)
        require(len(self.paths) > 0, f"{key}.paths", self.paths, "at least one file")
        require(len(self.covariates) > 0, f"{key}.covariates", {}, "what tells it from the others")
        set_values(
            self,
            paths=tuple(expanded(path, f"{key}.paths") for path in self.paths),
            covariates={
                name: expanded(value, f"{key}.covariates.{name}")
                if isinstance(value, str)
                else value
                for name, value in self.covariates.items()
            },
        )


@section
class Source:
    """Raw files, and what has to be declared about them; the tables are by variable name."""

    variables: tuple[str, ...]
    """Names of the variables; a level comes after its name, as in "t@850"."""
    paths: tuple[str, ...] = ()
    """Files or patterns of files: NetCDF, Zarr or GRIB."""
    scenarios: tuple[Scenario, ...] = ()
    """Files under several forcings, each with covariates of its own, instead of `paths`."""
    transform: Mapping[str, Transform] = field(default_factory=dict)
    """By variable, a map towards a bell shape: cbrt, log1p, logit or rank."""
    units: Mapping[str, str] = field(default_factory=dict)
    """By variable, the unit where the files say a wrong one or none."""
    missing: Mapping[str, float] = field(default_factory=dict)
    """By variable, the value that stands for missing."""
    valid_range: Mapping[str, Range] = field(default_factory=dict)
    """By variable, lowest and highest value; others are refused."""
    winds: tuple[Pair, ...] | None = None
    """Pairs (u, v) that are one vector field; found by their names if left empty."""
    bounds: Mapping[str, Range] = field(default_factory=dict)
    """By variable, the bounds of logit and rank."""
    fill: Fill | Mapping[str, Fill] = "refuse"
    """Missing values: refuse, harmonic, mask-ever, or the value they stand for."""
    static: tuple[str, ...] = ()
    """Maps without time that the model gets as inputs."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    """Series along time, name and CSV or NetCDF file, such as an index."""
    trend: tuple[str, ...] = ()
    """Covariates, or "time", that mean and scale of every cell follow."""
    allow_gaps: bool = False
    """Whether days may be lacking in the record."""
    dims: Mapping[str, str] = field(default_factory=dict)
    """By role (time, lat, lon, level, member, lead, cell), the name in the files."""
    select: Mapping[str, float | str] = field(default_factory=dict)
    """One label for each dimension that is not wanted."""
    samples: str = ""
    """A dimension whose values are samples of each time, such as members."""
    period: Period | None = None
    """First and last day to take from the source."""
    drop: tuple[str, ...] = ()
    """Times to leave out: dates, "first/last", or "empty" for those without values."""
    stamps: Stamps | None = None
    """What a time stands for: a day or month it lies in or ends, or an instant."""
    healpix: Literal["ring", "nested"] | None = None
    """Order of HEALPix cells, if the files do not say it."""
    group: str = ""
    """Group in NetCDF or Zarr files."""
    grib: Mapping[str, int | str] = field(default_factory=dict)
    """Keys of eccodes that tell which GRIB messages are meant, such as stepRange."""
    zarr_fill: Literal["value", "missing"] | None = None
    """Whether a fill value of 0 in Zarr 2 is a value, or stands for missing."""
    band: bool = False
    """Whether latitudes may end before the poles; rows that lack are missing."""

    def __post_init__(self) -> None:
        set_values(
            self,
            paths=tuple(expanded(path, "source.paths") for path in self.paths),
            covariates={
                name: expanded(path, f"source.covariates.{name}")
                for name, path in self.covariates.items()
            },
        )
        self._require_names()
        self._require_winds()
        self._require_keys_of_tables()
        self._require_times()
        for key in ("valid_range", "bounds"):
            for name, (low, high) in getattr(self, key).items():
                require(low < high, f"source.{key}.{name}", (low, high), "lowest < highest")
        for name in self.bounds:
            used = self.transform.get(name) in ("logit", "rank")
            require(used, f"source.bounds.{name}", self.transform.get(name, "identity"), BOUNDED)

    @property
    def files(self) -> tuple[str, ...]:
        """Files and patterns of all that fields are read from, scenario after scenario."""
        return (*self.paths, *(path for one in self.scenarios for path in one.paths))

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariates, which all scenarios have."""
        first = self.scenarios[0].covariates if self.scenarios else self.covariates
        return tuple(first)

    @property
    def covariate_files(self) -> tuple[str, ...]:
        """Files of covariates, of the source or of its scenarios."""
        given = [self.covariates, *(one.covariates for one in self.scenarios)]
        return tuple(each for one in given for each in one.values() if isinstance(each, str))

    def _require_scenarios(self) -> None:
        """Scenarios take the place of paths, covariates and samples, and are alike in names."""
        if not self.scenarios:
            require(len(self.paths) > 0, "source.paths", self.paths, "at least one file")
            return
        for key in ("paths", "covariates", "samples"):
            value = getattr(self, key)
            expected = "nothing beside source.scenarios, each of which has its own"
            if key == "samples":
                expected = "nothing beside source.scenarios: each is one course of the weather"
            require(not value, f"source.{key}", value, expected)
        names = [one.name for one in self.scenarios]
        require(len(names) > 1, "source.scenarios", names, "two or more; else give source.paths")
        require(len(set(names)) == len(names), "source.scenarios.name", names, "each name once")
        for one in self.scenarios[1:]:
            alike = set(one.covariates) == set(self.covariate_names)
            wanted = f"the names that {names[0]} has: {', '.join(self.covariate_names)}"
            key = f"source.scenarios.{one.name}.covariates"
            require(alike, key, list(one.covariates), wanted)

    def _require_names(self) -> None:
        self._require_scenarios()
        require(len(self.variables) > 0, "source.variables", self.variables, "at least one name")
        for name in self.trend:
            if name != "time" and name not in self.covariate_names:
                raise ConfigError(
                    f'source.trend: {name} is neither "time" nor in source.covariates'
                    f"{nearest(name, self.covariate_names)}"
                )
        for key in ("variables", "static", "trend"):
            names = getattr(self, key)
            require(len(set(names)) == len(names), f"source.{key}", names, "each name once")
        for name in self.covariate_names:
            taken = name in self.variables or name in self.static
            require(not taken, "source.covariates", name, "a name of its own")

    def _require_winds(self) -> None:
        for place, pair in enumerate(self.winds or ()):
            for name in pair:
                transform = self.transform.get(name, "identity")
                key = f"source.winds[{place}]"
                require(name in self.variables, key, name, "names of source.variables")
                require(transform == "identity", key, name, "variables without a transform")
        paired = [name for pair in self.winds or () for name in pair]
        require(len(set(paired)) == len(paired), "source.winds", paired, "each name once")

    def _require_keys_of_tables(self) -> None:
        """Tables by variable speak of variables that there are; those by role, of roles."""
        for name in self.fill if isinstance(self.fill, Mapping) else ():
            _require_known(f"source.fill.{name}", name, (*self.variables, *self.static))
        for key in ("transform", "units", "missing", "valid_range", "bounds"):
            for name in getattr(self, key):
                if (key, name) not in ROLE_UNITS:
                    _require_known(f"source.{key}.{name}", name, self.variables)
        for role in self.dims:
            if role not in ROLES:
                raise ConfigError(f"source.dims.{role} is not known{nearest(role, ROLES)}")

    def _require_times(self) -> None:
        if self.period is not None:
            for day in self.period:
                require_day(day, "source.period")
            ordered = self.period[0] <= self.period[1]
            require(ordered, "source.period", self.period, "first day <= last day")
        for entry in self.drop:
            dated = re.fullmatch(rf"{DATED}(/{DATED})?", entry)
            expected = 'a date, a range "first/last" of dates, or "empty"'
            require(entry == "empty" or dated is not None, "source.drop", entry, expected)

    def fill_of(self, name: str) -> str | float:
        """What is done about missing values of a variable."""
        return self.fill.get(name, "refuse") if isinstance(self.fill, Mapping) else self.fill


def _require_known(key: str, name: str, variables: tuple[str, ...]) -> None:
    if name not in variables:
        raise ConfigError(f"{key} is not in source.variables{nearest(name, variables)}")
