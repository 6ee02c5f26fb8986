"""The pictures of the report: maps as WebP and curves as SVG, both as elements of a page.

Values are shown in the units of the fields' CF attributes, precipitation fluxes in mm per day.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from flows.report.maps import THERMAL, Raster, draw

COLOURS = {
    "model": "#d1495b",
    "m-block": "#2e6f95",
    "channels": "#7fb7be",
    "noise-floor": "#555555",
    "band-limit": "#b08968",
}
NAMES = {
    "model": "model",
    "m-block": "m-block Gaussian",
    "channels": "isotropic Gaussian",
    "isotropic": "isotropic Gaussian, each variable alone",
    "averaged": "m-block Gaussian averaged with neighbouring orders",
    "whole": "best Gaussian law we know how to fit",
    "noise-floor": "noise floor",
    "band-limit": "noise floor, band-limited",
}
STATISTICS = {
    "mean": "mean",
    "sd": "standard deviation",
    "skewness": "skewness",
    "q999": "99.9 % quantile",
}
MANY = 8  # variables beyond which a page begins with a picture of all, and panels are small
SIGNED = ("eastward_wind", "northward_wind")
INK = "#1f2933"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it, with all superscripts
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a94a0",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "svg.fonttype": "none",
}


def units_of(field: xr.DataArray) -> tuple[float, str]:
    """Factor and unit for people: exponents raised, precipitation per day."""
    units = str(field.attrs.get("units", "1"))
    if field.attrs.get("standard_name") == "precipitation_flux" and units == "kg m-2 s-1":
        return 86400.0, "mm day⁻¹"
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    pretty = re.sub(r"(?<=[A-Za-z])-?\d+", lambda power: power[0].translate(raised), units)
    return 1.0, "" if pretty == "1" else pretty


def name_of(field: xr.DataArray) -> str:
    """The long name, or the variable's own."""
    return str(field.attrs.get("long_name", field.name))


def palette(field: xr.DataArray) -> Colormap | str:
    """The colour map of a quantity, by its standard name."""
    standard = str(field.attrs.get("standard_name", ""))
    if standard in SIGNED:
        return "PuOr_r"
    if "precipitation" in standard:
        return "YlGnBu"
    if "temperature" in standard:
        return THERMAL
    return "BuPu" if "speed" in standard else "viridis"


def scale(field: xr.DataArray, values: np.ndarray) -> Normalize:
    """Common limits: robust ends of all that is shown, symmetric or compressed by quantity."""
    standard = str(field.attrs.get("standard_name", ""))
    low, high = np.nanquantile(values, [0.002, 0.998])
    if standard in SIGNED:
        return symmetric(values)
    if "precipitation" in standard:
        return PowerNorm(0.5, 0.0, max(float(np.nanquantile(values, 0.995)), 1e-12))
    return Normalize(0.0 if "speed" in standard else low, max(high, low + 1e-12))


def symmetric(values: np.ndarray) -> Normalize:
    most = max(float(np.nanquantile(np.abs(values), 0.995)), 1e-12)
    return Normalize(-most, most)


def side_by_side(
    real: xr.DataArray,
    generated: xr.DataArray,
    rasters: tuple[Raster, Raster],
    *,
    anomaly: bool = False,
) -> Figure:
    """Real fields (time, *grid) above generated ones (realization, *grid), one colour scale.

    Each with the raster of its grid.
    """
    factor, unit = units_of(real)
    number = min(len(real), len(generated))
    values = factor * np.concatenate([np.ravel(real), np.ravel(generated)])
    norm = symmetric(values) if anomaly else scale(real, values)
    cmap = "RdBu_r" if anomaly else palette(real)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * number, 4.35), dpi=100)
        grid = figure.subplots(2, number, squeeze=False)
        for column in range(number):
            day = str(real["time"].dt.strftime("%-d %B %Y").values[column])
            shown = draw(grid[0, column], rasters[0], factor * real[column], cmap, norm)
            grid[0, column].set_title(f"real · {day}", fontsize=9, pad=2)
            member = int(generated["realization"].values[column])
            draw(grid[1, column], rasters[1], factor * generated[column], cmap, norm)
            title = f"generated · realization {member}"
            grid[1, column].set_title(title, fontsize=9, pad=2, color=COLOURS["model"])
        figure.subplots_adjust(0.005, 0.12, 0.995, 0.95, 0.02, 0.1)
        _colour_bar(figure, shown, [0.3, 0.075, 0.4, 0.022], unit)
    return figure


def statistic_maps(
    field: xr.DataArray, real: xr.Dataset, generated: xr.Dataset, raster: Raster
) -> Figure:
    """Mean, sd, skewness, q999: held-out, generated, and generated minus held-out."""
    factor, unit = units_of(field)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.8, 8.3), dpi=90)
        for row, (statistic, title) in enumerate(STATISTICS.items()):
            by, bar = (1.0, "") if statistic == "skewness" else (factor, unit)
            pair = [by * real[statistic], by * generated[statistic]]
            difference = pair[1] - pair[0]
            both = np.concatenate([np.ravel(each) for each in pair])
            cmap, norm = _statistic_scale(field, statistic, both)
            shown = [(pair[0], cmap, norm), (pair[1], cmap, norm)]
            shown.append((difference, "RdBu_r", symmetric(np.ravel(difference))))
            images = []
            for column, (values, colours, limits) in enumerate(shown):
                axes = figure.add_axes((0.03 + 0.325 * column, 0.77 - 0.243 * row, 0.315, 0.195))
                images.append(draw(axes, raster, values, colours, limits))
                if row == 0:
                    head = ("held-out", "generated", "generated − held-out")[column]
                    axes.set_title(head, fontsize=10, pad=4)
                if column == 0:
                    axes.text(
                        -0.05, 0.5, title, rotation=90, va="center", ha="center", fontsize=10,
                        transform=axes.transAxes,
                    )  # fmt: skip
            bottom = 0.757 - 0.243 * row
            _colour_bar(figure, images[0], [0.2, bottom, 0.29, 0.009], bar)
            _colour_bar(figure, images[2], [0.735, bottom, 0.2, 0.009], bar)
    return figure


def _statistic_scale(
    field: xr.DataArray, statistic: str, values: np.ndarray
) -> tuple[Colormap | str, Normalize]:
    if statistic == "skewness":
        return "PuOr_r", symmetric(values)
    if statistic == "sd":
        return "magma_r", Normalize(0, max(float(np.nanquantile(values, 0.998)), 1e-12))
    if statistic == "q999" and field.attrs.get("standard_name") in SIGNED:
        return "viridis", Normalize(*np.nanquantile(values, [0.002, 0.998]))
    return palette(field), scale(field, values)


def _colour_bar(figure: Figure, image: Any, box: Sequence[float], unit: str) -> None:
    axes = figure.add_axes((box[0], box[1], box[2], box[3]))
    bar = figure.colorbar(image, cax=axes, orientation="horizontal", extend="both")
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=8, length=2, width=0.5, pad=1.5)
    bar.ax.text(1.06, 0.5, unit, transform=bar.ax.transAxes, va="center", fontsize=8)


def spectrum_ratios(spectra: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """Power per degree over the held-out power, each candidate with its 95 % band."""
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(len(spectra))
        for axes, (name, curve) in zip(panels, spectra.items(), strict=True):
            axes.axhline(1, color="#8a94a0", linewidth=0.8)
            for owner, ratio in curve["ratio"].items():
                degree, colour = np.array(curve["degree"][1:]), COLOURS.get(owner, INK)
                low, high = np.array(ratio["low"][1:]), np.array(ratio["high"][1:])
                if owner in ("model", "noise-floor"):
                    axes.fill_between(degree, low, high, color=colour, alpha=0.15, linewidth=0)
                style = "--" if owner == "noise-floor" else "-"
                axes.plot(degree, ratio["value"][1:], style, color=colour, linewidth=1.5)
            axes.set_yscale("log", base=2)
            axes.set_ylim(0.4, 2.5)
            axes.set_yticks([0.5, 1, 2], ["½", "1", "2"])
            axes.set_title(short_title(titles[name], len(spectra)), fontsize=9, loc="left")
            axes.set_xlabel("degree", fontsize=8)
        _legend(figure, next(iter(spectra.values()))["ratio"])
    return figure


def rank_histograms(ranks: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """Density of the truth's rank among the realizations; flat when the two are exchangeable."""
    shown = ("channels", "m-block", "noise-floor", "model")
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(len(ranks))
        for axes, (name, by_owner) in zip(panels, ranks.items(), strict=True):
            axes.axhline(1, color="#8a94a0", linewidth=0.8)
            for owner in (each for each in shown if each in by_owner):
                frequency = np.array(by_owner[owner])
                edges = np.linspace(0, 1, len(frequency) + 1)
                axes.stairs(
                    frequency * len(frequency), edges, color=COLOURS[owner],
                    linewidth=1.8 if owner == "model" else 1.1,
                    linestyle="--" if owner == "noise-floor" else "-",
                )  # fmt: skip
            top = max(2.0, 1.1 * max(max(f) * len(f) for f in by_owner.values()))
            axes.set_ylim(0, min(top, 4.0))
            axes.set_xlim(0, 1)
            axes.set_xticks([0, 0.5, 1], ["low", "", "high"])
            axes.set_title(short_title(titles[name], len(ranks)), fontsize=9, loc="left")
        _legend(figure, [owner for owner in shown if owner in next(iter(ranks.values()))])
    return figure


def certificate_splits(certificate: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """J_G over the model's own baseline: by degree, by variable, by degree and diffusion time.

    Bars have their standard errors.
    """
    with matplotlib.rc_context(STYLE):
        shares = certificate["per_variable"]
        figure = Figure(figsize=(10.2, max(3.0, 0.7 + 0.27 * len(shares))), dpi=150)
        by_degree, by_variable, by_both = figure.subplots(1, 3, width_ratios=(1.15, 0.8, 1.15))
        look: dict[str, Any] = {"color": COLOURS["model"], "ecolor": INK}
        bars: dict[str, Any] = {"elinewidth": 0.7}
        nats = np.array(certificate["per_degree"])
        error = certificate["per_degree_error"]
        by_degree.bar(np.arange(len(nats)), nats, 0.75, yerr=error, error_kw=bars, **look)
        by_degree.axhline(0, color="#8a94a0", linewidth=0.8)
        by_degree.set_xlabel("degree")
        by_degree.set_title("by degree [nats]", fontsize=9, loc="left")

        error = [certificate["per_variable_error"][name] for name in shares]
        place = np.arange(len(shares))
        by_variable.barh(place, [*shares.values()], 0.6, xerr=error, error_kw=bars, **look)
        by_variable.axvline(0, color="#8a94a0", linewidth=0.8)
        names = [titles.get(name, name) for name in shares]
        width = 16 if len(names) <= MANY else 28
        by_variable.set_yticks(place, [textwrap.fill(name, width) for name in names], fontsize=7.5)
        by_variable.invert_yaxis()
        by_variable.set_title("by variable [nats]", fontsize=9, loc="left")

        table = np.array(certificate["spectrum"]).sum(axis=1)
        # A step goes from one time of the grid to the next and acts at the first; the last ends at
        # 0, which has no place on a logarithmic axis.
        times = np.array(certificate["times"])
        edges = np.append(times[:-1], times[-2] ** 2 / times[-3] if len(times) > 2 else 0.1)
        degree = np.arange(table.shape[1] + 1) - 0.5
        shown = by_both.pcolormesh(
            degree, edges, table, cmap="RdBu_r", norm=symmetric(table), rasterized=True
        )
        by_both.set_yscale("log")
        by_both.set_xlabel("degree")
        by_both.set_title("by degree and diffusion time t [nats]", fontsize=9, loc="left")
        figure.colorbar(shown, ax=by_both, pad=0.02).outline.set_linewidth(0.4)
        figure.tight_layout()
    return figure


def readme_picture(
    real: xr.DataArray, generated: xr.DataArray, path: str | Path, *, anomaly: bool = False
) -> None:
    """Write the picture of the README: real fields above generated ones, below 400 kB."""
    rasters = Raster(real, width=480), Raster(generated, width=480)
    figure = side_by_side(real, generated, rasters, anomaly=anomaly)
    figure.set_dpi(110)
    _pixels(figure).quantize(256, dither=Image.Dither.NONE).save(path, format="png", optimize=True)


def image(figure: Figure, text: str) -> str:
    """An <img> element with the picture inside, as WebP: a third of a PNG's size."""
    stream = io.BytesIO()
    _pixels(figure).save(stream, format="webp", quality=80, method=4)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/webp;base64,{data}">'


def svg(figure: Figure, text: str) -> str:
    """An inline <svg> element; identical figures give identical text."""
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": text}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    body = stream.getvalue()
    return body[body.index("<svg") :].replace(
        "<svg", f'<svg role="img" aria-label="{escape(text)}"', 1
    )


def short_title(title: str, panels: int) -> str:
    """A title that fits over its panel."""
    return title if panels <= MANY else textwrap.shorten(title, 30, placeholder=" …")


def _pixels(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(STYLE):
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def panels_of(number: int) -> tuple[Figure, list[Axes]]:
    columns, width, height = (3, 3.4, 2.15) if number <= MANY else (5, 2.04, 1.6)
    columns = min(columns, number)
    rows = -(-number // columns)
    tall = height * rows + 0.45
    figure = Figure(figsize=(width * columns, tall))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[number:]:
        spare.axis("off")
    bottom = 0.45 / tall if number > MANY else 0.11 if rows > 1 else 0.17
    figure.subplots_adjust(0.05, bottom, 0.985, 1 - 0.62 / tall, 0.2, 0.6)
    return figure, list(axes[:number])


def _legend(figure: Figure, owners: Any) -> None:
    handles = [
        matplotlib.lines.Line2D(
            [],
            [],
            color=COLOURS.get(owner, INK),
            label=NAMES.get(owner, owner),
            linestyle="--" if owner == "noise-floor" else "-",
        )
        for owner in owners
    ]
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=9)
