"""The history of a run: every published training and ensemble, what differed, what came of it."""

import json
from collections.abc import Mapping
from typing import Any

from storage.artifacts import publishing as artifacts
from storage.artifacts.history import history
from storage.artifacts.layout import StoreLayout
from storage.artifacts.publishing import Published

Row = dict[str, Any]
KINDS = ("checkpoints", "ensemble")


def runs(layout: StoreLayout) -> list[Row]:
    """One row for each published training and ensemble, oldest first.

    `changed` has the keys of the configuration that differ from the row of this kind before, as
    [before, now]; `scores` those of the report on a training: J_G over each baseline, and the
    median ratio to the noise floor.
    """
    reports = _reports(layout)
    rows: list[Row] = []
    for kind in KINDS:
        named = artifacts.published(layout, kind)
        before: dict[str, Any] | None = None
        for one in history(layout, kind):
            config = _flat(one.attrs.get("config", {}))
            figures = dict(one.attrs.get("figures", {}))
            trained = one.digest if kind == "checkpoints" else one.attrs.get("checkpoints_digest")
            rows.append(
                {
                    "kind": kind,
                    "date": one.attrs.get("date_created", ""),
                    "key": one.key,
                    "digest": one.digest,
                    "current": named is not None and named.key == one.key,
                    "checkpoint": trained,
                    "started_from": one.attrs.get("started_from", ""),
                    "seconds": one.attrs.get("seconds"),
                    "steps": figures.get("steps"),
                    "J_G": figures.get("J_G validation"),
                    "realizations": figures.get("realizations"),
                    "changed": {} if before is None else _difference(before, config),
                    "scores": reports.get(str(trained), {}),
                }
            )
            before = config
    return sorted(rows, key=lambda row: (row["date"], row["kind"]))


def table(rows: list[Row]) -> str:
    """The rows for a terminal."""
    lines = [f"{'date':<20}{'kind':<13}{'key':<14}{'steps':>7}{'seconds':>9}  {'J_G':<18}changed"]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in row["changed"].items())
        mark = "*" if row["current"] else " "
        lines.append(
            f"{row['date'][:19]:<20}{row['kind']:<13}{row['key'][:12]}{mark:<2}"
            f"{row['steps'] if row['steps'] is not None else '':>7}{seconds:>9}  "
            f"{row['J_G'] or '':<18}{changed}"
        )
        scores = ", ".join(f"{name} {value}" for name, value in row["scores"].items())
        if scores and row["kind"] == "checkpoints":
            lines.append(f"{'':<20}{scores}")
    return "\n".join([*lines, "* is what the name leads to"]) if rows else "nothing is published"


def _reports(layout: StoreLayout) -> dict[str, dict[str, Any]]:
    """Figures of the newest report about each checkpoint, by its digest."""
    found: dict[str, dict[str, Any]] = {}
    for report in history(layout, "report"):
        digest = _checkpoint_of(report)
        if digest:
            found[digest] = dict(report.attrs.get("figures", {}))
    return found


def _checkpoint_of(report: Published) -> str:
    card = json.loads((report.path / "scores.json").read_bytes())
    return str(card["provenance"]["digests"].get("checkpoints", ""))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in config.items()
        for key, value in values.items()
    }


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        key: [before.get(key), now.get(key)]
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(("cluster.", "run.root"))
    }
