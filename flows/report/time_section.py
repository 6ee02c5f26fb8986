"""How days follow each other, as HTML; schema: flows/stages/verify/in_time."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flows.report.figures import STYLE, panels_of, short_title
from flows.report.score_tables import Card

SHOWN = (1, 2, 5, 10, 20, 30)  # lags of the table
DEGREES = ((2, "#1b4965"), (8, "#c8553d"), (20, "#6a994e"))  # of the picture, and their colours


def time_section(card: Card, pictures: Mapping[str, str]) -> str:
    found = card.get("time")
    if not found:
        return ""
    rungs = "".join(
        f"<tr><td>given {'the day' if days == '1' else f'{days} days'} before</td>"
        f'<td class="number"><b>{rung["nats"]:.0f}</b></td>'
        f'<td class="number">{rung["low"]:.0f} to {rung["high"]:.0f}</td></tr>'
        for days, rung in found["ladder"].items()
    )
    return (
        "<p>Days are drawn one after the other, each given the days before it, by the linear law "
        "of sequences: waves travel, and a sequence has the variance of the data from its first "
        "day on.</p>"
        '<div class="scroll"><table><tr><th>A held-out day is likelier</th>'
        '<th class="number">nats per day</th><th class="number">95 % interval</th></tr>'
        f"{rungs}</table></div>"
        f'<p class="note">Log-density of {found["days"]} held-out days, exactly, over that of days '
        "drawn by themselves.</p>"
        f"{_correlations(card, pictures)}"
        '<p class="note">Nothing is claimed about what lasts longer than a season: a few years do '
        "not show El Niño or the quasi-biennial oscillation, and a linear law knows neither "
        "fronts nor the asymmetry of their growth and decay.</p>"
    )


def _correlations(card: Card, pictures: Mapping[str, str]) -> str:
    found = card["time"]
    if "misses" not in found:
        return '<p class="note">No sequences were drawn.</p>'
    lags = [lag for lag in SHOWN if lag <= found["lags"]]
    head = "".join(f'<th class="number">{lag}</th>' for lag in lags)
    floor = found["misses"].get("floor")
    rows = ""
    for place, name in enumerate(found["channels"]):
        cells = ""
        for lag in lags:
            value = f"{found['misses']['model'][lag][place]:.3f}"
            beside = f" ({floor[lag][place]:.3f})" if floor else ""
            cells += f'<td class="number">{value}{beside}</td>'
        rows += f"<tr><td>{escape(name)}</td>{cells}</tr>"
    picture = pictures.get("time")
    return (
        "<h3>Autocorrelation</h3>"
        + (f"<figure>{picture}</figure>" if picture else "")
        + '<div class="scroll"><table><tr><th>Days apart</th>'
        + f"{head}</tr>{rows}</table></div>"
        + '<p class="note">Root mean square over degrees of the difference between the '
        "autocorrelation of drawn sequences (lines) and that of held-out days (dots); in brackets "
        "that of training days in stretches as long: what another real year misses.</p>"
    )


def correlation_curves(found: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """Autocorrelation by lag of some degrees: drawn sequences as lines, held-out days as dots."""
    truth, model = (np.array(found[name], dtype=np.float64) for name in ("truth", "model"))
    lags = np.arange(found["lags"] + 1)
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(len(found["channels"]))
        for place, (axes, name) in enumerate(zip(panels, found["channels"], strict=True)):
            axes.axhline(0, color="#8a94a0", linewidth=0.8)
            for degree, colour in DEGREES:
                if degree <= found["degrees"]:
                    label = f"degree {degree}"
                    axes.plot(lags, model[:, place, degree], color=colour, label=label)
                    axes.plot(lags, truth[:, place, degree], ".", color=colour, markersize=3)
            axes.set_ylim(-0.35, 1.02)
            title = short_title(titles.get(name, name), len(found["channels"]))
            axes.set_title(title, fontsize=9, loc="left")
            axes.set_xlabel("days apart", fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", ncols=3, frameon=False, fontsize=9)
    return figure
