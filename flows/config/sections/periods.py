"""[split]: disjoint periods of the record, and the dates of a period."""

import itertools
import json
from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from flows.config.sections.checks import require, require_day
from flows.config.strict import ConfigError, section

__all__ = [
    "LATEST",
    "PAIR",
    "Pair",
    "Period",
    "Periods",
    "Split",
    "pairs_of",
    "spoken_periods",
    "within",
]

PAIR = {"type": "array", "minItems": 2, "maxItems": 2}  # as a form says it
Pair = Annotated[tuple[str, str], WithJsonSchema({**PAIR, "items": {"type": "string"}})]
Period = Pair  # first and last day, inclusive, ISO dates; the last may be LATEST
PAIRS = {"type": "array", "minItems": 2}


def _in_one_list(value: object, info: ValidationInfo) -> object:
    """A list of lists is refused with what it should be."""
    if isinstance(value, list | tuple) and any(isinstance(one, list | tuple) for one in value):
        days = [day for one in value for day in (one if isinstance(one, list | tuple) else [one])]
        raise ConfigError(
            f"split.{info.field_name}: first and last day of each period stand in one list; write "
            f"{json.dumps(days)}, got {json.dumps(value)}"
        )
    return tuple(value) if isinstance(value, list) else value


Periods = Annotated[  # first and last day of each, one period after the other
    tuple[str, ...],
    BeforeValidator(_in_one_list),
    WithJsonSchema({**PAIRS, "items": {"type": "string"}}),
]
LATEST = "latest"  # the last day that there is


@section
class Split:
    """Disjoint periods: what is learned from, what is chosen on, and what only scores see.

    The one that comes last may end at "latest": it then grows with the record. Where
    `source.samples` are members, these can be split instead: no member is then in two splits, and
    periods may overlap.
    """

    train: Periods
    """First and last day of what is learned from; of each period, where there are several."""
    validation: Periods
    """First and last day of what chooses among models; of each period, where there are several."""
    test: Periods
    """First and last day of what only scores see; of each period, where there are several."""
    train_members: tuple[str, ...] = ()
    """Labels of the members that are learned from, where members are split."""
    validation_members: tuple[str, ...] = ()
    """Labels of the members that choose among models, where members are split."""
    test_members: tuple[str, ...] = ()
    """Labels of the members that only scores see, where members are split."""

    def __post_init__(self) -> None:
        names = ("train", "validation", "test")
        for name in names:
            self._require_periods(name)
        if self.by_members:
            self._require_members()
            return
        periods = [(period, name) for name in names for period in self.periods(name)]
        for ((_, last), name), ((first, _), other) in itertools.pairwise(sorted(periods)):
            if first <= last:
                raise ConfigError(
                    f"split.{other} starts on {first}, before split.{name} ends on {last}; "
                    "the periods must not overlap"
                )

    def periods(self, name: str) -> tuple[Period, ...]:
        """First and last day of each period of a split, in order of time."""
        return pairs_of(getattr(self, name))

    def spoken(self, name: str) -> str:
        """The periods of a split, in words."""
        return spoken_periods(getattr(self, name))

    @property
    def by_members(self) -> bool:
        """Whether members are split; else periods alone are."""
        return bool(self.train_members or self.validation_members or self.test_members)

    def members(self, name: str) -> tuple[str, ...]:
        """The labels of the members of a split; none where members are not split."""
        labels: tuple[str, ...] = getattr(self, f"{name}_members")
        return labels

    def _require_periods(self, name: str) -> None:
        key, days = f"split.{name}", getattr(self, name)
        pairs = "first and last day, of each period where there are several"
        require(len(days) >= 2 and len(days) % 2 == 0, key, days, pairs)
        for day in days[:-1] if days[-1] == LATEST else days:
            require_day(day, key)
        for first, last in self.periods(name):
            require(first <= last, key, (first, last), "first day <= last day")
        for (_, last), (first, _) in itertools.pairwise(self.periods(name)):
            require(last < first, key, days, "periods one after the other")

    def _require_members(self) -> None:
        seen: dict[str, str] = {}
        for name, least in (("train", 1), ("validation", 1), ("test", 2)):
            key, labels = f"split.{name}_members", self.members(name)
            plural = "s" * (least > 1)
            expected = f"{least} label{plural} or more, as members are split"
            require(len(labels) >= least, key, labels, expected)
            for label in labels:
                if label in seen:
                    raise ConfigError(
                        f"{key}: member {label!r} is in {seen[label]}, too; a member is in one "
                        "split at most"
                    )
                seen[label] = key


def pairs_of(days: Sequence[str]) -> tuple[Period, ...]:
    """First and last day of each period of a split, as the configuration lists them."""
    return tuple(zip(days[::2], days[1::2], strict=True))


def spoken_periods(days: Sequence[str]) -> str:
    """The periods of a split, in words."""
    return " and ".join(f"{first} to {last}" for first, last in pairs_of(days))


def within(period: Period) -> slice:
    """The times of a period, for `sel`; a last day of 31 is the end of its month everywhere."""
    first, last = period
    if last == LATEST:
        return slice(first, None)
    beyond = last.endswith("-31") or last.endswith("-02-30")  # not in every calendar
    return slice(first, last[:7] if beyond else last)
