"""One picture of all variables: a real field beside a generated one, small."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from flows.report.figures import COLOURS, STYLE, palette, scale, units_of
from flows.report.maps import Raster, draw

PAIRS = 3  # beside each other
WIDTH, HEIGHT = 10.8, 1.24  # of all pairs, and of one [inches]


def contact_sheet(
    real: xr.Dataset,
    generated: xr.Dataset,
    titles: Mapping[str, str],
    rasters: tuple[Raster, Raster],
) -> Figure:
    """First real field (time, *grid) and first generated one (realization, *grid) of each variable.

    Args:
        titles: Name for people of each variable to show.
        rasters: Of the grids of the two.
    """
    rows = -(-len(titles) // PAIRS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT * rows + 0.05), dpi=110)
        widths = [1.0, 1.0, 0.08] * PAIRS
        grid = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
        for axes in grid.ravel():
            axes.axis("off")
        for number, (name, title) in enumerate(titles.items()):
            row, column = divmod(number, PAIRS)
            factor, _ = units_of(real[name])
            pair = factor * real[name][0], factor * generated[name][0]
            norm = scale(real[name], np.concatenate([np.ravel(each) for each in pair]))
            for side, (field, raster) in enumerate(zip(pair, rasters, strict=True)):
                axes = grid[row, 3 * column + side]
                draw(axes, raster, field, palette(real[name]), norm)
            left = grid[row, 3 * column]
            left.set_title(title, fontsize=8.5, loc="left", pad=3)
            right = grid[row, 3 * column + 1]
            right.set_title("generated", fontsize=8, loc="right", pad=3, color=COLOURS["model"])
        top = 1 - 0.2 / figure.get_size_inches()[1]
        figure.subplots_adjust(0.004, 0.004, 1.0, top, 0.03, 0.3)
    return figure
