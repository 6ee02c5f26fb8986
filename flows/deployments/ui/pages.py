"""Pages about a stage that has just been published, in Markdown, with pictures inside.

Each stage has the rows of one table and at most one picture. Pictures are PNG data URIs: the
Prefect UI loads nothing from elsewhere.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from flows.stages.base import Receipt
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

Rows = list[dict[str, Any]]
WIDEST = 900  # pixels of a picture


def rows_of(receipt: Receipt, layout: StoreLayout) -> Rows:
    """The table of a stage."""
    published = artifacts.published(layout, receipt.kind)
    assert published is not None
    return _ROWS[receipt.stage](published, receipt, layout)


def picture_of(receipt: Receipt, layout: StoreLayout) -> str | None:
    """A page with the picture of a stage, if it has one."""
    draw = _PICTURES.get(receipt.stage)
    found = draw(layout) if draw else None
    if found is None:
        return None
    title, figure, words = found
    return f"### {title}\n\n{embedded(figure, title)}\n\n{words}"


def embedded(figure: Figure, text: str) -> str:
    """A picture as Markdown, with few colours so that it stays small."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white", dpi=100, bbox_inches="tight")
    picture = Image.open(stream).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)))
    small = io.BytesIO()
    # The default, median cut, gives thin lines of two colours one.
    reduced = picture.quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(small, format="png", optimize=True)
    return f"![{text}](data:image/png;base64,{base64.b64encode(small.getvalue()).decode()})"


def _ingest(published: artifacts.Published, receipt: Receipt, layout: StoreLayout) -> Rows:
    dataset = artifacts.open_artifact(published)
    size = sum(array.nbytes for array in dataset.data_vars.values()) / 1e6
    times = dataset["time"].values
    rows: Rows = [
        {"what": "days", "value": f"{len(times)}, {str(times[0])[:10]} to {str(times[-1])[:10]}"},
        {"what": "variables", "value": ", ".join(map(str, dataset.data_vars))},
        {"what": "files", "value": len(published.attrs["source_files"])},
        *_throughput(receipt, size, "MB of values"),
    ]
    return rows + [{"what": "noted", "value": note} for note in published.attrs["notes"][:8]]


def _preprocess(published: artifacts.Published, receipt: Receipt, layout: StoreLayout) -> Rows:
    dataset = artifacts.open_artifact(published)
    figures = published.attrs["figures"]
    kept = figures.get("variance_kept", {})
    return [
        {"what": "days", "value": dataset.sizes["time"]},
        {"what": "channels", "value": dataset.sizes["channel"]},
        {"what": "coefficients", "value": dataset.sizes["coefficient"]},
        *({"what": f"variance kept of {name}", "value": f"{v:.1%}"} for name, v in kept.items()),
        *_throughput(receipt, dataset["x"].nbytes / 1e6, "MB whitened"),
    ]


def _train(published: artifacts.Published, receipt: Receipt, layout: StoreLayout) -> Rows:
    history = published.attrs.get("history", [])
    return [
        {
            "step": entry["step"],
            "loss": round(entry["loss"], 4),
            "J_G on validation [nats]": f"{entry['nats']:.1f} ± {entry['error']:.1f}",
        }
        for entry in history
    ] or [{"model": receipt.figures.get("model", ""), "steps": 0}]


def _generate(published: artifacts.Published, receipt: Receipt, layout: StoreLayout) -> Rows:
    dataset = artifacts.open_artifact(published)
    drawn = dataset.sizes["realization"] * dataset.sizes["time"]
    return [
        {"what": "realizations", "value": dataset.sizes["realization"]},
        {"what": "dates", "value": dataset.sizes["time"]},
        {"what": "grid", "value": receipt.figures.get("grid", "")},
        *_throughput(receipt, drawn, "fields"),
    ]


def _verify(published: artifacts.Published, receipt: Receipt, layout: StoreLayout) -> Rows:
    card = json.loads(layout.scores.read_bytes())
    rows: Rows = [
        {
            "score": f"J_G over {name} [nats]",
            "variable": "all",
            "model": f"{part['nats']:.1f} [{part['low']:.1f}, {part['high']:.1f}]",
            "over noise floor": "",
        }
        for name, part in card["certificate"]["over"].items()
    ]
    for score, variables in card["scores"].items():
        for variable, entries in variables.items():
            model = entries.get("model")
            if model is None:
                continue
            ratio = (model.get("ratio") or {}).get("value")
            rows.append(
                {
                    "score": score,
                    "variable": variable,
                    "model": _short(model.get("value")),
                    "over noise floor": "" if ratio is None else f"{ratio:.2f}",
                }
            )
    return rows


def _throughput(receipt: Receipt, amount: float, unit: str) -> Rows:
    seconds = max(receipt.seconds, 1e-3)
    return [
        {"what": "seconds", "value": round(receipt.seconds, 1)},
        {"what": f"{unit} per second", "value": _short(amount / seconds)},
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "" if value is None else str(value)


Drawn = tuple[str, Figure, str] | None


def _history_picture(layout: StoreLayout) -> Drawn:
    from flows.report.figures import COLOURS, STYLE

    published = artifacts.published(layout, "checkpoints")
    assert published is not None
    history: Sequence[Mapping[str, float]] = published.attrs.get("history", [])
    if len(history) < 2:
        return None
    steps = np.array([entry["step"] for entry in history])
    nats = np.array([entry["nats"] for entry in history])
    error = np.array([entry["error"] for entry in history])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 2.6), dpi=100)
        left, right = figure.subplots(1, 2)
        left.plot(steps, [entry["loss"] for entry in history], color="#5b6773", linewidth=1.5)
        left.set_title("loss", fontsize=9, loc="left")
        right.fill_between(steps, nats - error, nats + error, color=COLOURS["model"], alpha=0.2)
        right.plot(steps, nats, color=COLOURS["model"], linewidth=1.5)
        right.set_title("J_G on validation days [nats]", fontsize=9, loc="left")
        for axes in (left, right):
            axes.set_xlabel("step", fontsize=8)
        figure.subplots_adjust(0.06, 0.2, 0.99, 0.9, 0.18)
    words = "The weights that are kept are those of the highest J_G, not of the lowest loss."
    return "Training", figure, words


def _fields_picture(layout: StoreLayout) -> Drawn:
    from flows.report.figures import side_by_side
    from flows.report.maps import Raster
    from flows.stages.verify.pictures import gallery

    normals = artifacts.open_published(layout, "normals").load()
    real, generated, _ = gallery(layout, normals)
    name = next(iter(generated.data_vars))
    rasters = Raster(real, width=320), Raster(generated, width=320)
    figure = side_by_side(real[name], generated[name], rasters)
    words = f"`{name}`: real days of the season above, generated ones below, one colour scale."
    return "Generated beside real", figure, words


def _spectra_picture(layout: StoreLayout) -> Drawn:
    from flows.report.figures import spectrum_ratios
    from flows.stages.verify.pictures import wind_titles

    card = json.loads(layout.scores.read_bytes())
    titles = {name: about["long_name"] for name, about in card["variables"].items()}
    titles |= wind_titles(artifacts.open_published(layout, "normals"), titles)
    figure = spectrum_ratios(card["spectra"], titles)
    return "Spectra", figure, "Power of each degree over that of held-out days; 1 is right."


_ROWS: Mapping[str, Callable[[artifacts.Published, Receipt, StoreLayout], Rows]] = {
    "ingest": _ingest,
    "preprocess": _preprocess,
    "train": _train,
    "generate": _generate,
    "verify": _verify,
}
_PICTURES: Mapping[str, Callable[[StoreLayout], Drawn]] = {
    "train": _history_picture,
    "generate": _fields_picture,
    "verify": _spectra_picture,
}
