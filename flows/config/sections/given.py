"""[condition]: what fields are drawn given."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import WithJsonSchema

from flows.config.sections.checks import expanded, require, require_day, set_values
from flows.config.sections.periods import Period, pairs_of
from flows.config.strict import section

__all__ = ["ALL", "Condition", "Event"]

ALL = "all"  # gaps: every day that the record lacks
PARTICLES_OF_AN_EVENT = 64
_FOUR = {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "number"}}
Box = Annotated[tuple[float, float, float, float], WithJsonSchema(_FOUR)]


@section
class Event:
    """The mean of a variable over a box, from each of `generate.times` on, beyond a threshold."""

    variable: str
    """Name of the variable."""
    box: Box
    """South, north, west and east [degrees]; west may be larger than east."""
    above: float | None = None
    """The mean is above this value, in the unit of the variable."""
    below: float | None = None
    """Or below this one."""
    days: int = 1
    """Days that the mean is over, one after the other; more than one needs `sequence.past`."""
    against: Mapping[str, float] = field(default_factory=dict)
    """Values of covariates in another world: how likely the event is there, and the ratio."""

    def __post_init__(self) -> None:
        key = "condition.event"
        south, north, west, east = self.box
        sphere = -90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360
        require(sphere, f"{key}.box", self.box, "south, north, west, east on the sphere")
        one = (self.above is None) != (self.below is None)
        require(one, f"{key}.above", (self.above, self.below), "either above or below")
        require(self.days > 0, f"{key}.days", self.days, "a positive number")


@section
class Condition:
    """Fields given what is known: observations, holes, coarse fields, an event, days beside."""

    observations: str | None = None
    """CSV, Parquet or NetCDF: time, lat, lon, variable, value, and if need be error and unit."""
    fields: tuple[str, ...] = ()
    """Files of fields on the grid of the source, missing values where fields are wanted."""
    coarse: tuple[str, ...] = ()
    """Files of fields on a coarser grid, which the draws agree with."""
    coarse_lmax: int | None = None
    """Last degree that coarse fields tell; by default a third of their longitudes."""
    event: Event | None = None
    """What shall happen."""
    gaps: Literal["all"] | tuple[str, ...] = ()
    """Days of the record to fill: "all" that it lacks, or first and last day of each gap."""
    error: Mapping[str, float] = field(default_factory=dict)
    """By variable, standard deviation of errors where tables tell none, and of fields."""
    withheld: float = 0.0
    """Share of the observations that draws are not given but compared with."""
    realizations: int = 16
    """Fields drawn for each date; raising it draws only the new ones."""
    particles: int = 0
    """Draws of a network that are weighed together; 1: not weighed; 0: 64 for an event, else 1."""
    evaluations: int = 32
    """Evaluations of the network for each draw."""

    def __post_init__(self) -> None:
        if self.observations is not None:
            path = expanded(self.observations, "condition.observations")
            set_values(self, observations=path)
        for name in ("fields", "coarse"):
            paths = tuple(expanded(path, f"condition.{name}") for path in getattr(self, name))
            set_values(self, **{name: paths})
        for name in ("realizations", "evaluations"):
            value = getattr(self, name)
            require(value > 0, f"condition.{name}", value, "a positive number")
        require(self.particles >= 0, "condition.particles", self.particles, "0 or more")
        if self.particles == 0:
            set_values(self, particles=1 if self.event is None else PARTICLES_OF_AN_EVENT)
        for name, value in self.error.items():
            require(value >= 0.0, f"condition.error.{name}", value, "0 or more")
        share = 0.0 <= self.withheld < 1.0
        require(share, "condition.withheld", self.withheld, "a share from 0 to less than 1")
        lmax = self.coarse_lmax is None or self.coarse_lmax >= 0
        require(lmax, "condition.coarse_lmax", self.coarse_lmax, "0 or more")
        alone = self.event is None or not (self.given or self.gaps)
        beside = (*self.given, *([self.gaps] if isinstance(self.gaps, str) else self.gaps))
        require(alone, "condition.event", beside, "no observations and no gaps beside an event")
        self._require_gaps()

    def _require_gaps(self) -> None:
        key, days = "condition.gaps", self.gaps
        if isinstance(days, str):
            return
        require(len(days) % 2 == 0, key, days, '"all", or first and last day of each gap')
        for day in days:
            require_day(day, key)
        require(list(days) == sorted(days), key, days, "gaps one after the other")

    @property
    def periods(self) -> tuple[Period, ...]:
        """First and last day of each gap that is named."""
        return () if isinstance(self.gaps, str) else pairs_of(self.gaps)

    @property
    def observes(self) -> bool:
        """Whether draws are given what files say; an event or days beside gaps need none."""
        return self.event is None and (bool(self.given) or not self.gaps)

    @property
    def given(self) -> tuple[str, ...]:
        """All files that say what is known."""
        table = () if self.observations is None else (self.observations,)
        return (*table, *self.fields, *self.coarse)
