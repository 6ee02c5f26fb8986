"""The scores of a report: their names, what the matrix shows of them, and their section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from flows.report.figures import NAMES
from flows.report.worth import MATRIX
from flows.report.writing import written

Card = Mapping[str, Any]

SCORES = {
    "mean": ("mean", "rmse of the map of the mean"),
    "sd": ("sd", "rmse of the map of the standard deviation about the season's course"),
    "skewness": ("skewness", "rmse of the map of the skewness"),
    "q999": (
        "99.9 % quantile",
        "rmse of its map: each cell's mean and standard deviation, with the standardised quantile "
        "pooled over bands of latitude, as no single cell has the thousand dates it needs; ten "
        "values of a band lie beyond it, often of one storm, so it is less certain than it looks",
    ),
    "tail": (
        "tail",
        "99.9 % quantile of all standardised values of the globe together, over the held-out one; "
        "ideally 1",
    ),
    "spectrum": ("spectrum", "rms logarithm of the ratio of power spectra, each coefficient alike"),
    "crps": ("CRPS", "fair continuous ranked probability score, mean over area and dates"),
    "spread": ("spread / error", "of the ensemble over the error of its mean, ideally 1"),
    "ranks": ("ranks", "share of cases in the wrong bin of the rank histogram"),
    "correlation": ("correlation", "rmse of the maps of correlation between two variables"),
    "energy_score": ("energy score", "the CRPS of whole fields of all variables together"),
    "energy_distance": (
        "energy distance",
        "between the laws of whole fields, 0 in expectation when they are the same",
    ),
}
BESIDE = ("m-block", "channels", "band-limit")
CALIBRATION = ("spread", "tail")
IN_FIELD_UNITS = ("mean", "sd", "q999", "crps")
SHADES = ((1.1, "#d8efe3"), (1.3, "#eef4d4"), (1.7, "#fdeec7"), (2.5, "#fad9c1"))
WORST = "#f3c1bd"


def scores_section(card: Card) -> Markup:
    """The section of the page: the matrix of ratios at a glance, then every number."""
    found = card["scores"]
    columns = [name for name in MATRIX if any(name in scores for scores in found.values())]
    return written(
        "scores.html",
        card=card,
        names=NAMES,
        scores=SCORES,
        beside=BESIDE,
        columns=columns,
        calibration=list(CALIBRATION),
        shades=[*SHADES, (None, WORST)],
        matrix={
            variable: [_cell(scores.get(name, {}), True) for name in columns]
            + [_cell(scores.get(name, {}), False) for name in CALIBRATION]
            for variable, scores in found.items()
        },
        joint=[_row(name, entries) for name, entries in card["joint"].items()],
        every={
            variable: [
                _row(name, scores[name], card["variables"][variable])
                for name in SCORES
                if name in scores
            ]
            for variable, scores in found.items()
        },
        imposed=imposed(card),
    )


def _cell(entries: Mapping[str, Any], ratio: bool) -> dict[str, Any] | None:
    """The numbers of a cell of the matrix and its colour; None if the model has none."""
    found = {
        owner: entry["ratio"]["value"] if ratio else entry["value"]
        for owner in ("model", *BESIDE)
        if (entry := entries.get(owner)) and (entry["ratio"] or not ratio)
    }
    if "model" not in found:
        return None
    model = found.pop("model")
    away = model if ratio else math.exp(2 * abs(math.log(max(model, 1e-9))))
    shade = next((colour for limit, colour in SHADES if away <= limit), WORST)
    return {"model": model, "shade": shade, "others": list(found.values())}


def _row(
    name: str, entries: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A score of all candidates, in the units for people of what it is about."""
    title, description = SCORES[name]
    physical = about is not None and name in IN_FIELD_UNITS
    return {
        "name": title,
        "description": Markup(description),
        "entries": entries,
        "factor": about["factor"] if about and physical else 1.0,
        "unit": about["display_units"] if about and physical else "",
    }


def imposed(card: Card) -> str:
    """The sentence that power spectra of the draws were set, where they were; else nothing."""
    if not card["made"].get("matched"):
        return ""
    return (
        " The power spectra of the model are imposed, not learned: its flow is matched to those of "
        "the training fields, and the score “spectrum” says how well that was done."
    )
