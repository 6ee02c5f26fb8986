"""The figures of the page, drawn by Bokeh in the browser.

What was drawn and what is real differ in line and mark as well as in colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    HoverTool,
    LinearColorMapper,
)
from bokeh.plotting import figure
from matplotlib import colormaps
from matplotlib.colors import Colormap, Normalize, to_hex

from flows.report.maps import NO_DATA, coastlines
from pipeline.arrays import FloatArray
from pipeline.scores.return_levels import ReturnLevels

DRAWN, REAL = "#0072b2", "#d55e00"  # of Okabe and Ito, told apart by all
LOOKS: dict[str, dict[str, Any]] = {
    "generated": {"line_color": DRAWN, "line_width": 2},
    "real": {"line_color": REAL, "line_width": 2, "line_dash": "dashed"},
}
MAP_WIDTH, MAP_HEIGHT, PLOT_HEIGHT = 318, 168, 250
BINS = 30


class MapFigure:
    """A map, its coastlines, and a cross at the place that is looked at."""

    def __init__(self, mapper: LinearColorMapper, extent: tuple[float, ...], width: int) -> None:
        west, east, south, north = extent
        self.figure = figure(
            width=MAP_WIDTH,
            height=MAP_HEIGHT,
            x_range=(west, east),
            y_range=(south, north),
            tools="wheel_zoom,pan,reset",
            toolbar_location=None,
            match_aspect=True,
            sizing_mode="fixed",
        )
        plot = self.figure
        plot.axis.visible = plot.grid.visible = False
        plot.outline_line_color = None
        plot.background_fill_color = None
        plot.title.text_font_size = "12px"
        plot.title.text_font_style = "normal"
        empty = np.full((2, width), np.nan)
        self.image = ColumnDataSource({"image": [empty]})
        self.place = ColumnDataSource({"x": [], "y": []})
        drawn = plot.image(
            "image", x=west, y=south, dw=east - west, dh=north - south, color_mapper=mapper,
            source=self.image,
        )  # fmt: skip
        lines = coastlines()
        plot.multi_line(
            [line[:, 0] for line in lines], [line[:, 1] for line in lines],
            line_color="black", line_width=0.6, line_alpha=0.6,
        )  # fmt: skip
        for colour, size in (("white", 15), ("black", 12)):
            plot.scatter(
                "x", "y", marker="cross", size=size, line_color=colour, line_width=2.5,
                source=self.place,
            )  # fmt: skip
        plot.add_tools(
            HoverTool(renderers=[drawn], tooltips=[("", "@image{0.00}")]),
            CrosshairTool(line_alpha=0.2),
        )

    def show(self, pixels: FloatArray, title: str) -> None:
        self.image.data = {"image": [pixels]}
        self.figure.title.text = title


def colour_mapper() -> LinearColorMapper:
    return LinearColorMapper(palette="Viridis256", low=0, high=1, nan_color=NO_DATA)


def recolour(mapper: LinearColorMapper, norm: Normalize, colours: Colormap | str) -> None:
    """Give a mapper, which is linear, the colours of a norm that need not be."""
    assert norm.vmin is not None and norm.vmax is not None
    table = colormaps[colours] if isinstance(colours, str) else colours
    values = np.linspace(norm.vmin, norm.vmax, 256)
    mapper.update(
        palette=[to_hex(one) for one in table(norm(values))], low=norm.vmin, high=norm.vmax
    )


def colour_bar(mapper: LinearColorMapper) -> figure:
    plot = figure(
        width=3 * MAP_WIDTH, height=52, toolbar_location=None, tools="", outline_line_color=None
    )
    plot.axis.visible = plot.grid.visible = False
    plot.scatter([], [])
    bar = ColorBar(
        color_mapper=mapper, orientation="horizontal", height=10, padding=2, margin=0,
        ticker=BasicTicker(desired_num_ticks=8), title_text_font_size="12px",
    )  # fmt: skip
    plot.add_layout(bar, "above")
    return plot


def plot(x: str, y: str, width: int, **options: Any) -> figure:
    made = figure(
        width=width, height=PLOT_HEIGHT, tools="pan,box_zoom,wheel_zoom,reset,save",
        toolbar_location="right", x_axis_label=x, y_axis_label=y, **options,
    )  # fmt: skip
    made.title.text_font_size = "12px"
    made.toolbar.logo = None
    return made


def densities(samples: dict[str, FloatArray], words: str, width: int = 480) -> figure:
    """Histograms of samples in common bins, each of area one."""
    made = plot(words, "density", width, title="Distribution")
    values = np.concatenate([one[np.isfinite(one)] for one in samples.values()])
    if not values.size:
        return made
    low, high = float(values.min()), float(values.max())
    bins = int(np.clip(np.sqrt(min(map(len, samples.values()))), 5, BINS))
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for name, one in samples.items():
        counts, _ = np.histogram(one[np.isfinite(one)], edges, density=True)
        height = np.concatenate([[0.0], np.repeat(counts, 2), [0.0]])
        label = f"{name}: {np.isfinite(one).sum()}"
        made.line(np.repeat(edges, 2), height, legend_label=label, **LOOKS[name])
    return _with_legend(made, "top_right")


def levels(found: dict[str, ReturnLevels], words: str, width: int = 480) -> figure:
    """Levels against the number of draws of which one exceeds them, with 95 % intervals."""
    title = "Return level: exceeded on one of so many days"
    made = plot("days", words, width, title=title, x_axis_type="log")
    for name, one in found.items():
        known = np.isfinite(one.level)
        both = known & np.isfinite(one.low) & np.isfinite(one.high)
        colour = LOOKS[name]["line_color"]
        made.varea(one.period[both], one.low[both], one.high[both], color=colour, alpha=0.18)
        label = f"{name}, 95 %"
        made.line(one.period[known], one.level[known], legend_label=label, **LOOKS[name])
    return _with_legend(made, "top_left")


def lines(drawn: list[Any], real: list[Any], x: str, y: str, title: str, **options: Any) -> figure:
    """Lines (x, y) of what was drawn and of what is real."""
    made = plot(x, y, 620, title=title, **options)
    for name, several in (("real", real), ("generated", drawn)):
        look = LOOKS[name] | {"line_width": 1.3, "line_alpha": 0.75}
        for across, up in several:
            made.line(across, up, legend_label=name, **look)
            if len(across) == 1:
                mark = {"marker": "circle" if name == "generated" else "x", "size": 7}
                made.scatter(across, up, color=LOOKS[name]["line_color"], alpha=0.6, **mark)
    return _with_legend(made, "top_right") if drawn or real else made


def _with_legend(made: figure, place: str) -> figure:
    if made.legend:
        made.legend.location = place
        made.legend.background_fill_alpha = 0.7
        made.legend.label_text_font_size = "11px"
        made.legend.padding = 4
    return made
