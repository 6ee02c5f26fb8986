"""Imitations of files that people have, and the rows of docs/inputs.md that tests stand for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import SourceError, open_source

DAY = np.timedelta64(1, "D")
TITLES = {
    "format": "Formats",
    "grid": "Grids",
    "time": "Times",
    "dimension": "Other dimensions, levels, several files",
    "value": "Values and units",
    "archive": "Archives, imitated",
    "harm": "Files that would do harm",
}


class Row(NamedTuple):
    subject: str
    input: str
    result: str
    test: str
    module: str


ROWS: dict[str, Row] = {}

Test = Callable[..., None]


def row(subject: str, given: str, result: str) -> Callable[[Test], Test]:
    """The test shows what happens to an input; both sentences go to docs/inputs.md."""

    def register(test: Test) -> Test:
        name = test.__name__
        while name in ROWS and ROWS[name].input != given:
            name += "_"
        ROWS[name] = Row(subject, given, result, name, test.__module__.rpartition(".")[2])
        return test

    return register


def page() -> str:
    """docs/inputs.md."""
    text = [(Path(__file__).parent / "inputs_head.md").read_text().rstrip()]
    rows = sorted(ROWS.values(), key=lambda row: row.module)  # whoever was imported first
    for subject, title in TITLES.items():
        text += ["", f"## {title}", "", "| input | what happens |", "|---|---|"]
        text += [f"| {r.input} | {r.result} |" for r in rows if r.subject == subject]
    return "\n".join(text) + "\n"


def days(count: int = 6, start: str = "2000-01-01", step: np.timedelta64 = DAY) -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * step


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return (280 + np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def on_first_days(table: dict[str, Any]) -> None:
    """Give a configuration the splits and the date that the fewest days of `regular` have."""
    first = ("2000-01-01", "2000-01-02", "2000-01-03")
    names = ("train", "validation", "test")
    table["split"] = {name: [day, day] for name, day in zip(names, first, strict=True)}
    table["generate"]["times"] = [first[0]]


def regular(
    count: int = 6,
    start: str = "2000-01-01",
    lat: Any = None,
    lon: Any = None,
    name: str = "ta",
    seed: int = 0,
) -> xr.Dataset:
    """Days of air temperature on a coarse global grid, with CF attributes."""
    lat = np.array([-67.5, -22.5, 22.5, 67.5]) if lat is None else np.asarray(lat)
    lon = np.arange(8) * 45.0 if lon is None else np.asarray(lon)
    attrs = {"units": "K", "standard_name": "air_temperature"}
    field = values(count, lat.size, lon.size, seed=seed)
    return xr.Dataset(
        {name: (("time", "lat", "lon"), field, attrs)},
        coords={
            "time": ("time", days(count, start), {"standard_name": "time"}),
            "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )


def levelled(plev: Sequence[float], units: str | None = "Pa", dim: str = "plev") -> xr.Dataset:
    """Temperature (time, level, lat, lon), around 200 K plus a tenth of the level in hPa."""
    surface = regular()
    number = np.asarray(plev, dtype=float) * {"Pa": 0.01}.get(str(units), 1.0)
    field = (surface.ta.values[:, None] - 80) + number[:, None, None] / 10
    attrs = {"units": units, "standard_name": "air_pressure", "positive": "down"}
    coords = {**surface.coords, dim: (dim, np.asarray(plev), attrs if units else {})}
    dims = ("time", dim, "lat", "lon")
    return xr.Dataset({"ta": (dims, field, surface.ta.attrs)}, coords=coords)


def write(tmp_path: Path, source: xr.Dataset, name: str = "a.nc", **options: Any) -> str:
    path = tmp_path / name
    if name.endswith(".zarr"):
        source.to_zarr(path, mode="w", **options)
    else:
        path.unlink(missing_ok=True)
        source.to_netcdf(path, **options)
    return str(path)


def opened(tmp_path: Path, source: xr.Dataset, name: str = "ta", **options: Any) -> Any:
    """Fields and report of a source written to a file."""
    return open_source(write(tmp_path, source), [name], **options)


def refused(
    match: str, paths: Any, names: Sequence[str] = ("ta",), *, code: int = 10, **options: Any
) -> str:
    """The message with which an input is refused: one line, and its exit code."""
    with pytest.raises(SourceError, match=match) as caught:
        open_source(paths, names, **options)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def served_by(directory: Path) -> Iterator[str]:
    """The address at which a directory is read over HTTP, ranges included, on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def end_headers(self) -> None:
            path = Path(self.translate_path(self.path))
            if path.is_file():  # Google's buckets always tell one
                self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}"')
            super().end_headers()

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            path = Path(self.translate_path(self.path))
            if asked is None or not path.is_file():
                return super().do_GET()
            content = path.read_bytes()
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first) if first else len(content) - int(last)
            end = int(last) + 1 if last and first else len(content)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
            self.send_header("Content-Length", str(end - begin))
            self.end_headers()
            self.wfile.write(content[begin:end])
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
