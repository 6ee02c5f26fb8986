"""The ratios of a benchmark as one chart, on a logarithmic axis with 1 marked."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from deploy.bench.rows import Row


def draw(rows: Sequence[Row], path: Path) -> None:
    """One line for each row that has a ratio, a tick at its goal; losses have another colour."""
    shown = [row for row in rows if row.ratio]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.22 * len(shown)), layout="constrained")
    for place, row in enumerate(shown):
        assert row.ratio is not None
        colour = "tab:blue" if row.ratio >= 1 else "tab:red"
        axes.hlines(place, min(1, row.ratio), max(1, row.ratio), color=colour, linewidth=1)
        axes.plot(row.ratio, place, "o", color=colour, markersize=5)
        if row.goal:
            axes.plot(row.goal, place, "|", color="black", markersize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(shown)), [f"{row.row}  |  {row.rival}" for row in shown], fontsize=7)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.set_xlabel("times better than the rival (1 = equal; | = goal)")
    figure.savefig(path, dpi=150)
    plt.close(figure)
