"""[split]: disjoint periods of the record, and the dates of a period."""

import itertools
from typing import Annotated

from pydantic import WithJsonSchema

from flows.config.sections.checks import require, require_day
from flows.config.strict import ConfigError, section

__all__ = ["LATEST", "PAIR", "Pair", "Period", "Split", "within"]

PAIR = {"type": "array", "minItems": 2, "maxItems": 2}  # as a form says it
Pair = Annotated[tuple[str, str], WithJsonSchema({**PAIR, "items": {"type": "string"}})]
Period = Pair  # first and last day, inclusive, ISO dates; the last may be LATEST
LATEST = "latest"  # the last day that there is


@section
class Split:
    """Disjoint periods: what is learned from, what is chosen on, and what only scores see.

    The one that comes last may end at "latest": it then grows with the record.
    """

    train: Period
    """First and last day of what is learned from."""
    validation: Period
    """First and last day of what chooses among models."""
    test: Period
    """First and last day of what only scores see."""

    def __post_init__(self) -> None:
        periods = {name: getattr(self, name) for name in ("train", "validation", "test")}
        for name, period in periods.items():
            for day in period[:1] if period[1] == LATEST else period:
                require_day(day, f"split.{name}")
            require(period[0] <= period[1], f"split.{name}", period, "first day <= last day")
        ordered = sorted(periods.items(), key=lambda item: item[1])
        for (name, (_, last)), (other, (first, _)) in itertools.pairwise(ordered):
            if first <= last:
                raise ConfigError(
                    f"split.{other} starts on {first}, before split.{name} ends on {last}; "
                    "the periods must not overlap"
                )


def within(period: Period) -> slice:
    """The times of a period, for `sel`; a last day of 31 is the end of its month everywhere."""
    first, last = period
    if last == LATEST:
        return slice(first, None)
    beyond = last.endswith("-31") or last.endswith("-02-30")  # not in every calendar
    return slice(first, last[:7] if beyond else last)
