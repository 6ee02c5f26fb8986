"""One self-contained HTML page per run: what was made, beside what it was learned from.

`render(card, pictures)` is a function of `scores.json` (schema: flows/stages/verify/verify) and of
ready-made picture elements by name (flows/report/figures); it reads nothing and loads nothing from
elsewhere. The words are in templates/, one file for each section.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from flows.report.figures import MANY, NAMES
from flows.report.score_tables import Card, imposed, scores_section
from flows.report.worth import MATRIX, ratios
from flows.report.writing import written

TITLES = {
    "fields": "Generated beside real",
    "scores": "Scores",
    "response": "Response to forcing",
    "certificate": "Beyond Gaussian",
    "time": "Day after day",
    "maps": "Climate maps",
    "spectra": "Spectra",
    "compatibility": "Data and noise",
    "ranks": "Calibration",
    "memory": "Memorisation",
    "care": "What to be careful about",
    "provenance": "Provenance",
}


def render(card: Card, pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        card: The content of scores.json.
        pictures: HTML elements: `overview`, `fields/<variable>`, `anomalies/<variable>`,
            `maps/<variable>`, `spectra`, `ranks`, `certificate`, `time`, `compatibility`; what is
            absent is left out.
    """
    provenance = card["provenance"]
    values: dict[str, Any] = {
        "card": card,
        "names": NAMES,
        "pictures": {name: Markup(element) for name, element in pictures.items()},
        "imposed": imposed(card),
        "memory": card.get("memorisation"),
        "drawn": [name for name in card["variables"] if pictures.get(f"fields/{name}")],
        "ratios_shown": len(card["scores"]) * len(MATRIX),
        "config": json.dumps(provenance["config"], indent=1, ensure_ascii=False),
    }
    bodies = {
        name: scores_section(card) if name == "scores" else written(f"{name}.html", **values)
        for name in TITLES
    }
    sections = [(name, title, bodies[name]) for name, title in TITLES.items() if bodies[name]]
    page = written("page.html", **values, **_head(card), sections=sections)
    return f"{page}\n"


def _head(card: Card) -> dict[str, Any]:
    """What stands above the sections: the sentence of what was made, and the tiles."""
    owners = ("model", "m-block", "channels")
    typical = {owner: median(found) for owner in owners if (found := list(ratios(card, owner)))}
    memory, grid = card.get("memorisation"), card["protocol"]["grid"]
    drawn_on = card["made"].get("grid", grid)
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return {
        "css": Markup(css),
        "listed": _listed(card),
        "elsewhere": drawn_on if drawn_on != grid else "",
        "learned": card["provenance"]["config"].get("train", {}).get("model", "network"),
        "gained": card["certificate"]["over"] if card.get("certificate") else {},
        "typical": typical,
        "middle": memory["levels"].index(0.5) if memory else None,
    }


def _listed(card: Card) -> str:
    """The variables in words; three of them if they are many."""
    names = [about["long_name"] for about in card["variables"].values() if not about["derived"]]
    if len(names) > MANY:
        names = [*names[:3], f"{len(names) - 3} more variables"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
