"""The scores of a report as HTML: the matrix of ratios at a glance, then every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from flows.report.figures import NAMES
from pipeline.scores.score_card import FLOOR

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
MATRIX = ("mean", "sd", "skewness", "q999", "spectrum", "crps")
BESIDE = ("m-block", "channels", "band-limit")
CALIBRATION = ("spread", "tail")
IN_FIELD_UNITS = ("mean", "sd", "q999", "crps")
SHADES = ((1.1, "#d8efe3"), (1.3, "#eef4d4"), (1.7, "#fdeec7"), (2.5, "#fad9c1"))
WORST = "#f3c1bd"


def scores_section(card: Card) -> str:
    protocol = card["protocol"]
    floor = (
        "The <b>noise floor</b> is the score of real fields: the same calendar days of the "
        "training years, scored exactly as if they were an ensemble. A ratio of 1 means that the "
        "ensemble cannot be told from another real year."
        if FLOOR in protocol["realizations"]
        else "The training period holds no fields of the season of the held-out dates, so there is "
        "no noise floor and no ratio to it."
    )
    small = "below it: " + " · ".join(
        NAMES[owner] for owner in BESIDE if owner in protocol["realizations"]
    )
    keys = "".join(
        f'<span class="key" style="background:{colour}"></span>{label}'
        for colour, label in zip(
            [shade for _, shade in SHADES] + [WORST],
            ["≤ 1.1", "≤ 1.3", "≤ 1.7", "≤ 2.5", "above"],
            strict=True,
        )
    )
    return (
        f"<p>Against {len(protocol['dates'])} held-out dates, {period(protocol['dates'])}, with "
        f"{protocol['realizations'].get('model', 0)} realizations for each. {floor}</p>"
        f'<div class="scroll">{_matrix(card)}</div>'
        f'<p class="note">Large: the model over the noise floor; {small}. Shade of the large '
        f"number: {keys}. The last columns are calibration itself, ideally 1.{imposed(card)}</p>"
        f"{_joint(card)}{_details(card)}"
    )


def _matrix(card: Card) -> str:
    columns = [name for name in MATRIX if any(name in s for s in card["scores"].values())]
    heads = "".join(f"<th>{SCORES[name][0]}</th>" for name in [*columns, *CALIBRATION])
    rows = []
    for variable, scores in card["scores"].items():
        title = f"{escape(card['variables'][variable]['long_name'])}"
        cells = [f"<td>{title}<br><small>{escape(variable)}</small></td>"]
        cells += [_cell(scores.get(name, {}), True) for name in columns]
        cells += [_cell(scores.get(name, {}), False) for name in CALIBRATION]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table class="matrix"><tr><th></th>{heads}</tr>{"".join(rows)}</table>'


def _cell(entries: Mapping[str, Any], ratio: bool) -> str:
    def number(owner: str) -> float | None:
        entry = entries.get(owner)
        if entry is None or (ratio and not entry["ratio"]):
            return None
        return float(entry["ratio"]["value"] if ratio else entry["value"])

    model = number("model")
    if model is None:
        return "<td>–</td>"
    away = model if ratio else math.exp(2 * abs(math.log(max(model, 1e-9))))
    shade = next((colour for limit, colour in SHADES if away <= limit), WORST)
    others = [number(owner) for owner in BESIDE]
    small = " · ".join(_times(other) for other in others if other is not None)
    return f'<td style="background:{shade}"><b>{_times(model)}</b><small>{small}</small></td>'


def _joint(card: Card) -> str:
    rows = [
        _entry_row(SCORES[name], entries, card, 1.0, "") for name, entries in card["joint"].items()
    ]
    return f"<h3>All variables together</h3>{_entry_table(rows, card)}"


def _details(card: Card) -> str:
    parts = []
    for variable, scores in card["scores"].items():
        about = card["variables"][variable]
        rows = []
        for name, title in SCORES.items():
            if name in scores:
                physical = name in IN_FIELD_UNITS
                factor, unit = (about["factor"], about["display_units"]) if physical else (1.0, "")
                rows.append(_entry_row(title, scores[name], card, factor, unit))
        parts.append(
            f"<details><summary>{escape(about['long_name'])}</summary>"
            f"{_entry_table(rows, card)}</details>"
        )
    return f'<h3>Every score</h3><div class="fold">{"".join(parts)}</div>'


def _entry_table(rows: list[str], card: Card) -> str:
    heads = "".join(
        f'<th class="number">{NAMES.get(owner, escape(owner))}</th>'
        for owner in card["protocol"]["realizations"]
    )
    return f'<div class="scroll"><table><tr><th>score</th>{heads}</tr>{"".join(rows)}</table></div>'


def _entry_row(
    title: tuple[str, str], entries: Mapping[str, Any], card: Card, factor: float, unit: str
) -> str:
    cells = []
    for owner in card["protocol"]["realizations"]:
        entry = entries.get(owner)
        if entry is None:
            cells.append("<td></td>")
            continue
        text = f"{_short(factor * entry['value'])} ± {_short(factor * entry['standard_error'], 2)}"
        extras = []
        if entry.get("ratio"):
            ratio = entry["ratio"]
            extras.append(
                f"× {_times(ratio['value'])} ({_times(ratio['low'])} – {_times(ratio['high'])})"
            )
        elif entry.get("excess") is not None:
            extras.append(f"{entry['excess']:+.1f} standard errors from the floor")
        if entry.get("relative") is not None:
            extras.append(f"{100 * entry['relative']:.0f} % of the held-out sd")
        if entry.get("skill") is not None:
            extras.append(f"skill over climatology {100 * entry['skill']:+.1f} %")
        small = "".join(f"<br><small>{extra}</small>" for extra in extras)
        cells.append(f'<td class="number">{text}{small}</td>')
    name, description = title
    units = f" <small>[{escape(unit)}]</small>" if unit else ""
    return f"<tr><td><b>{name}</b>{units}<br><small>{description}</small></td>{''.join(cells)}</tr>"


def imposed(card: Card) -> str:
    """That the power spectra of the draws were set, where they were; else nothing."""
    if not card["made"].get("matched"):
        return ""
    return (
        " The power spectra of the model are imposed, not learned: its flow is matched to those of "
        "the training fields, and the score “spectrum” says how well that was done."
    )


def ratios(card: Card, owner: str) -> Iterator[float]:
    """Every ratio to the noise floor that the matrix shows for one candidate."""
    for scores in card["scores"].values():
        for name in MATRIX:
            entry = scores.get(name, {}).get(owner)
            if entry and entry["ratio"]:
                yield entry["ratio"]["value"]


def period(days: Iterable[str]) -> str:
    """First and last day, in words."""
    listed = [str(day)[:10] for day in days]
    return f"{listed[0]} to {listed[-1]}"


def _times(value: float) -> str:
    if value > 99:
        return "> 99"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _short(value: float, digits: int = 3) -> str:
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"
