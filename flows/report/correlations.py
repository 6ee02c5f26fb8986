"""The picture of how days follow each other; schema: flows/stages/verify/in_time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flows.report.figures import STYLE, panels_of, short_title

DEGREES = ((2, "#1b4965"), (8, "#c8553d"), (20, "#6a994e"))  # and their colours


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
