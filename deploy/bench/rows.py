"""Rows of the benchmark: what is compared with what, and how often better ours is.

A subject declares its rows unmeasured; measuring gives the same rows filled, or with the reason why
they are empty. So no row can disappear.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        unit: of `ours` and `theirs`; more is better where it ends in "/s", less everywhere else.
        goal: the ratio to reach.
        limit_share: part of what the machine allows, or of a named limit (docs/performance.md).
        note: why the row is empty, or what must be known to read it.
    """

    row: str
    rival: str
    unit: str
    goal: float | None = None
    ours: float | None = None
    theirs: float | None = None
    limit_share: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; 1 is equal."""
        if self.ours is None or self.theirs is None:
            return None
        return self.ours / self.theirs if self.unit.endswith("/s") else self.theirs / self.ours

    def measured(
        self, ours: float, theirs: float, *, limit_share: float | None = None, note: str = ""
    ) -> Row:
        return replace(self, ours=ours, theirs=theirs, limit_share=limit_share, note=note)

    def absent(self, reason: str) -> Row:
        nothing = dict.fromkeys(("ours", "theirs", "limit_share"))
        return replace(self, **nothing, note=" ".join(reason.split()))

    def is_for(self, other: Row) -> bool:
        return (self.row, self.rival, self.unit) == (other.row, other.rival, other.unit)


def save(rows: Iterable[Row], path: Path) -> None:
    """A list of {row, rival, unit, goal, ours, theirs, limit_share, note, ratio}."""
    table = [{**asdict(row), "ratio": row.ratio} for row in rows]
    path.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load(path: Path) -> list[Row]:
    """Rows of `save`; ratios are computed again."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**{k: v for k, v in row.items() if k != "ratio"}) for row in table]


def markdown(rows: Sequence[Row]) -> str:
    """The table of rows; a row without figures says why."""
    head = ["row", "rival", "ours", "theirs", "unit", "ratio", "goal", "share of limit", "note"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            row.row,
            row.rival,
            figure(row.ours),
            figure(row.theirs),
            row.unit,
            figure(row.ratio),
            figure(row.goal),
            "" if row.limit_share is None else f"{row.limit_share:.0%}",
            row.note.replace("|", "/"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(value: float | None) -> str:
    """Three significant digits, without an exponent; empty for nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def insert(page: str, rows: Sequence[Row], where: str) -> str:
    """The page with the region `bench` holding the table, and a line on where it was measured."""
    return between(page, "bench", f"{where}\n\n{markdown(rows)}")


def between(page: str, mark: str, text: str) -> str:
    """The page with the region between its two marks replaced.

    Raises:
        ValueError: If the page does not have the two marks, once each and in order.
    """
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs {begin} and then {end}, once each; put them back")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
