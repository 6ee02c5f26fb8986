"""One self-contained page about fields given what is known: maps, coverage, evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from flows.report.figures import STYLE, image, name_of, palette, scale, units_of
from flows.report.maps import THERMAL, Raster, draw, project

FIGURES = ("log_evidence", "effective_sample_size")  # what their names begin with
FEW = 0.05


def render(card: Mapping[str, Any], ensemble: xr.Dataset, places: xr.Dataset | None) -> str:
    """The page.

    Args:
        card: the content of conditioned.json (flows/stages/condition/findings).
        ensemble: the draws.
        places: of the first date's observations, lat and lon and which are withheld.
    """
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    sections = {
        "What was given": _given(card),
        "The event": _event(card),
        "Where gaps begin and end": _seams(card),
        "Days that the record has": _record(card),
        "At observed and withheld places": _scores(card),
        "Mean and spread": _maps(ensemble, places),
        "Weights and evidence": _weights(card),
    }
    bodies = "".join(
        f"<section><h2>{title}</h2>{body}</section>" for title, body in sections.items() if body
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(card['title'])}</title><style>{css}</style></head><body>"
        f"<header><div><h1>{escape(card['title'])}</h1></div></header>"
        f"<main>{bodies}</main></body></html>\n"
    )


def _given(card: Mapping[str, Any]) -> str:
    times = card["times"]
    parts = [f"{card[name]['number']} {name}" for name in ("observed", "withheld") if name in card]
    what = f", with {' and '.join(parts)} values" if parts else ""
    return (
        f"<p>{card['realizations']} realizations for each of {len(times)} dates, {times[0][:10]} "
        f"to {times[-1][:10]}{what}. The model is {escape(card['model'])}.</p>"
    )


def _event(card: Mapping[str, Any]) -> str:
    if "event" not in card:
        return ""
    asked, dates = card["event"]["about"], card["event"]["dates"]
    world = ", ".join(f"{name} {value:g}" for name, value in asked["against"].items())
    about = ", ".join(
        f"{name} {value}" for name, value in asked.items() if name not in ("against", "days")
    )
    about += f", mean of {asked['days']} days" if asked["days"] > 1 else ""
    rows = [(date, *_chance(one)) for date, one in dates.items()]
    last = "one in so many such days" if asked["days"] == 1 else "one in so many such spells"
    heads = ("probability", "standard error", "Gaussian law", last)
    said = (
        f"<p>{escape(about)}</p>{_table(('from' if asked['days'] > 1 else 'date', *heads), rows)}"
    )
    if not world:
        return said
    others = [
        (date, *_chance(one["against"]), *_ratio(one["ratio"])) for date, one in dates.items()
    ]
    more = ("times as likely", "standard error of its log", "odds ratio", "that of its log")
    paired = all(one["ratio"]["paired"] for one in dates.values())
    how = (
        "Both worlds are drawn from the same noise, and the errors of their ratio know it."
        if paired or not card["weighed"]
        else "There are too few groups of particles to see how alike both worlds err, so the "
        "errors of their ratio are those of independent draws: raise "
        "<code>condition.realizations</code> "
        "to eight times <code>condition.particles</code> or more."
    )
    return (
        f"{said}<p>With {escape(world)}:</p>{_table(('from', *heads, *more), others)}<p>{how}</p>"
    )


def _chance(one: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{one['probability']:.3g}",
        f"{one['standard_error']:.2g}",
        f"{one['gaussian']:.3g}",
        f"{one['return_period']:.4g}",
    )


def _ratio(one: Mapping[str, float]) -> tuple[str, ...]:
    names = ("probability", "log_error", "odds", "log_odds_error")
    return tuple(f"{one[name]:.3g}" for name in names)


def _seams(card: Mapping[str, Any]) -> str:
    """How the days of gaps resemble their neighbours, beside those of the record."""
    if "seams" not in card:
        return ""
    words = {
        "first day": "first day of a gap and the known day before it",
        "within": "days of a gap",
        "last day": "last day of a gap and the known day after it",
        "record": "days of the record in that season",
    }
    rows = [
        (
            name,
            *(
                f"{card['seams'][kind][place]['mean']:.3f} "
                f"± {card['seams'][kind][place]['deviation']:.3f}"
                if kind in card["seams"]
                else "-"
                for kind in words
            ),
        )
        for place, name in enumerate(card["names"])
    ]
    gaps = ", ".join(
        first if first == last else f"{first} to {last}" for first, last in card["gaps"]
    )
    return (
        f"<p>Filled: {escape(gaps)}. Each draw is a sequence of days that fits between the days "
        f"beside its gap.</p>{_table(('', *words.values()), rows)}<p>Correlation over the sphere "
        "of the anomalies of a day with those of the day before: mean and deviation over draws "
        "and gaps, or over pairs of days.</p>"
    )


def _record(card: Mapping[str, Any]) -> str:
    """Scores of filled days that the record has, by how far they are from a known day."""
    if "record" not in card:
        return ""
    rows = [
        (
            distance,
            str(one["days"]),
            f"{100 * one['coverage']:.1f} %",
            f"{one['crps']:.4f}",
            f"{one['error']:.3f}",
            f"{one['spread']:.3f}",
        )
        for distance, one in card["record"]["by distance"].items()
    ]
    heads = ("days to the nearest known one", "days", "90 % band holds", "fair CRPS")
    return (
        f"{_table((*heads, 'error of mean', 'spread'), rows)}<p>These days were drawn as if they "
        "were unknown. In climatological standard deviations, over all variables; a band between "
        f"quantiles of {card['realizations']} draws holds "
        f"{100 * card['record']['nominal']:.1f} % of what follows their law.</p>"
    )


def _scores(card: Mapping[str, Any]) -> str:
    names = {
        "observed": "draws at observed places",
        "withheld": "draws at withheld places",
        "kriging": "kriging at withheld places",
    }
    rows = [
        (
            words,
            str(card[name]["number"]),
            f"{100 * card[name]['coverage']:.1f} %",
            f"{card[name].get('crps', float('nan')):.4f}",
            f"{card[name]['error']:.3f}",
            f"{card[name]['spread']:.3f}",
            " ".join(map(str, card[name]["ranks"])),
        )
        for name, words in names.items()
        if name in card
    ]
    if not rows:
        return ""
    heads = ("", "values", "90 % band holds", "fair CRPS", "error of mean", "spread", "ranks")
    few = card["observed"]["nominal"] if "observed" in card else 0.9
    return (
        f"{_table(heads, rows)}<p>In climatological standard deviations of each place, errors of "
        f"the observations included. A band between quantiles of {card['realizations']} draws "
        f"holds {100 * few:.1f} % of what follows their law. Ranks of the truth are flat where the "
        "draws are calibrated; at observed places they crowd in the middle, and bands hold more, "
        "as the draws have seen what they are compared with.</p>"
    )


def _weights(card: Mapping[str, Any]) -> str:
    if "seams" in card:
        nats = float(np.mean(card["log_evidence"]))
        return (
            f"<p>log evidence {nats:.2f} nats for each gap: the log of the density, given the days "
            "before it, of the known days within and after it, and of what is observed of its "
            "own. The draws are exact draws of the linear law: no weights are needed.</p>"
        )
    mean, gaussian = (
        float(np.mean(card[name])) for name in ("log_evidence", "log_evidence_gaussian")
    )
    said = (
        f"<p>log evidence {mean:.2f} nats for each date, {gaussian:.2f} under the Gaussian law: "
        f"{mean - gaussian:+.2f}.</p>"
    )
    if not card["weighed"]:
        return said + "<p>The draws are exact: no weights are needed.</p>"
    if card["particles"] == 1:
        return (
            "<p>One particle is not weighed: the draws are those of the proposal, exact for "
            "Gaussian laws only. Their coverage at withheld places says how good they are.</p>"
        )
    share = 100 * card["effective"]
    said += (
        f"<p>Smallest effective sample size: {share:.1f} % of {card['particles']} particles.</p>"
    )
    if card["effective"] < FEW:
        said += (
            "<p>Below 5 % a few particles stand for all, and the spread of the draws is too small. "
            "More particles, larger errors or fewer observations help; <code>particles = 1</code> "
            "draws without weights, to be judged at withheld places.</p>"
        )
    return said


def _maps(ensemble: xr.Dataset, places: xr.Dataset | None) -> str:
    """Mean and spread of each variable at the first date."""
    names = [name for name in map(str, ensemble.data_vars) if not name.startswith(FIGURES)]
    first, made = ensemble[names].isel(time=0).load(), []
    raster = Raster(first[names[0]].isel(realization=0))
    for name in names:
        field = first[name]
        factor, unit = units_of(field)
        mean = factor * field.mean("realization")
        spread = factor * field.std("realization")
        made.append(
            image(
                _pair(raster, mean, spread, field, unit, places),
                f"{name_of(field)}: mean and spread of the draws",
            )
        )
    return "".join(made)


def _pair(
    raster: Raster,
    mean: xr.DataArray,
    spread: xr.DataArray,
    field: xr.DataArray,
    unit: str,
    places: xr.Dataset | None,
) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 2.9), dpi=110)
        axes = figure.subplots(1, 2)
        largest = float(np.nanmax(spread)) or 1.0
        looks = (
            (mean, palette(field), scale(field, mean.values), "mean"),
            (spread, THERMAL, Normalize(0.0, largest), "spread"),
        )
        for ax, (values, colours, norm, title) in zip(axes, looks, strict=True):
            shown = draw(ax, raster, values, colours, norm)
            figure.colorbar(shown, ax=ax, shrink=0.7, label=unit)
            ax.set_title(f"{name_of(field)}: {title}", fontsize=8.5, loc="left")
            _mark(ax, places)
    return figure


def _mark(ax: Any, places: xr.Dataset | None) -> None:
    """Observed places as dots, withheld ones as crosses."""
    if places is None:
        return
    at = np.isfinite(places["lat"].values)
    lat = places["lat"].values[at]
    lon = (places["lon"].values[at] + 180.0) % 360.0 - 180.0
    x, y = project(lon, lat)
    withheld = places["withheld"].values[at] == 1
    ax.plot(x[~withheld], y[~withheld], ".", color="black", markersize=2)
    ax.plot(x[withheld], y[withheld], "x", color="#1b7837", markersize=3)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(each)}</td>' for each in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
