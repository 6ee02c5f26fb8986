"""Pictures of days that follow each other: a film strip, and how waves move along a band."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flows.report.figures import STYLE, symmetric

STRIP_DAYS, MOVING_DAYS = 6, 60
ROWS = ("held-out days", "drawn days")


def film_strip(real: np.ndarray, drawn: np.ndarray, title: str) -> Figure:
    """Six consecutive days, real above drawn; maps (day, lat, lon) from south and from 0 E."""
    scale = symmetric(np.concatenate([real, drawn]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        panels = figure.subplots(2, STRIP_DAYS)
        for row, maps in enumerate((real, drawn)):
            for day in range(STRIP_DAYS):
                axes = panels[row, day]
                axes.imshow(maps[day], norm=scale, cmap="RdBu_r", aspect="auto", origin="lower")
                axes.set_xticks([])
                axes.set_yticks([])
                if row == 0:
                    axes.set_title(f"day {day + 1}", fontsize=8)
            panels[row, 0].set_ylabel(ROWS[row], fontsize=8)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def moving_waves(real: np.ndarray, drawn: np.ndarray, title: str) -> Figure:
    """Hovmöller diagrams: a band's mean by longitude and day, (day, lon) from 0 E; days go down."""
    scale = symmetric(np.concatenate([real, drawn]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        for axes, maps, name in zip(figure.subplots(1, 2), (real, drawn), ROWS, strict=True):
            axes.imshow(
                maps, norm=scale, cmap="RdBu_r", aspect="auto", extent=(0, 360, len(maps), 0)
            )
            axes.set_title(name, fontsize=9, loc="left")
            axes.set_xlabel("longitude [°E]", fontsize=8)
            axes.set_ylabel("day", fontsize=8)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure
