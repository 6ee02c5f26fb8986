"""The curves that say how well the reference noise suits the data, from the `normals` artifact."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from flows.report.figures import MANY, STYLE

# Twenty curves from ten colours.
COLOURS = [matplotlib.colormaps["tab10"](index % 10) for index in range(20)]
STYLES = ["-"] * 10 + ["--"] * 10


def compatibility_curves(
    normals: xr.Dataset, titles: Mapping[str, str], *, first: int = 1
) -> Figure:
    """S_l by degree, and the Gaussian divergence of the degrees up to each one, by channel.

    Shaded and dotted is what the sampling noise of as many independent fields would show. A
    divergence that levels off holds on any finer grid; one that climbs as the dashed line, like the
    number of coefficients, has no limit.

    Args:
        titles: Name for people of each channel.
        first: The first degree that is compared: the global mean is no scale.
    """
    shown = normals.sel(degree=slice(first, None))
    degree, samples = shown["degree"].values, float(normals.attrs["samples"])
    with matplotlib.rc_context(STYLE):
        many = shown.sizes["channel"] > MANY
        columns = 4 if many else 6
        lines = -(-shown.sizes["channel"] // columns)
        figure = Figure(figsize=(10.2, 2.8 + 0.2 * lines))
        ratios, sums = figure.subplots(1, 2)
        if many:
            for axes in (ratios, sums):
                axes.set_prop_cycle(color=COLOURS, linestyle=STYLES)
        noise = 2.0 * np.sqrt(2.0 / (samples * (2 * degree + 1)))
        ratios.fill_between(degree, np.exp(-noise), np.exp(noise), color="#8a94a0", alpha=0.25)
        for name in map(str, shown["channel"].values):
            channel = shown.sel(channel=name)
            ratios.plot(degree, channel["compatibility_ratio"], label=titles[name], linewidth=1.2)
            sums.plot(degree, np.maximum(channel["compatibility_kl"], 1e-6), linewidth=1.2)
        sums.plot(degree, (degree - first + 1) / (2.0 * samples), ":", color="#555555")
        top = float(np.nanmax(shown["compatibility_kl"].values))
        sums.plot(degree, max(top, 1e-6) * (degree / degree[-1]) ** 2, "--", color="#8a94a0")
        floor = 0.1 / (2.0 * samples)
        sums.set_ylim(bottom=floor, top=max(2.0 * top, 10.0 * floor))
        ratios.set_yscale("log")
        ratios.yaxis.set_major_formatter("{x:g}")
        ratios.yaxis.set_minor_formatter("{x:g}")
        sums.set_xscale("log")
        sums.set_yscale("log")
        for axes, title in (
            (ratios, "variance, data / reference"),
            (sums, "divergence of all degrees up to this one [nats]"),
        ):
            axes.set_xlabel("degree")
            axes.set_title(title, fontsize=9, loc="left")
        figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.24 * lines / figure.get_size_inches()[1]))
    return figure
