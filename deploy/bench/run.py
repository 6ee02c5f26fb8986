"""`make bench`: each stage against what one would take in its place, in one run, as ratios.

    python -m deploy.bench.run [--only SUBJECT ...] [--quick]

Each row is printed as soon as it is measured, with the seconds since its subject began; a subject
that fails says why in its rows, and the next one goes on. Writes build/bench.json and
build/bench.png after every subject and prints the table. A whole run also renews the table of
docs/performance.md; with --only or --quick the page stays as it is.
"""

import argparse
import importlib
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deploy.bench.rivals import BUILD, ROOT
from deploy.bench.rows import Row, figure, insert, save

SUBJECTS = (
    "transforms",
    "torch_transforms",
    "training",
    "sampling",
    "spectral_stage",
    "ingest",
    "ensemble_io",
    "overhead",
    "workers",
    "growth",
)
PAGE = ROOT / "docs" / "performance.md"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", nargs="+", choices=SUBJECTS, metavar="SUBJECT", default=[])
    arguments.add_argument("--quick", action="store_true", help="small sizes, in minutes")
    given = arguments.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before anything imports numpy; rivals inherit it
    warnings.filterwarnings("ignore", message="Consolidated metadata")
    BUILD.mkdir(exist_ok=True)
    import numpy  # noqa: F401 (its library of products is named)

    print(where(), flush=True)
    rows: list[Row] = []
    whole = time.monotonic()
    for name in given.only or SUBJECTS:
        print(f"\n{name}", flush=True)
        began = time.monotonic()
        for row in rows_of(name, given.quick):
            rows.append(row)
            print(f"{time.monotonic() - began:5.0f} s{line(row)}", flush=True)
        print(f"{name} took {time.monotonic() - began:.0f} s", flush=True)
        save(rows, BUILD / "bench.json")
        _draw(rows, BUILD / "bench.png")
    print(f"\nall of it took {(time.monotonic() - whole) / 60:.0f} minutes", flush=True)
    if not (given.only or given.quick):
        PAGE.write_text(insert(PAGE.read_text("utf-8"), rows, where()), encoding="utf-8")
    return 0


def rows_of(name: str, quick: bool) -> Iterator[Row]:
    """Every row that a subject declares, measured or with the reason why not."""
    subject = importlib.import_module(f"deploy.bench.{name}")
    waiting, reason = list(subject.ROWS), "left out by --quick" if quick else "not measured"
    try:
        for row in subject.measure(quick):
            waiting = [other for other in waiting if not other.is_for(row)]
            yield row
    except Exception as error:
        traceback.print_exc()
        reason = f"failed: {type(error).__name__}: {error}"
    yield from (row.absent(reason) for row in waiting)


def line(row: Row) -> str:
    """A row for the terminal."""
    if row.ratio is None:
        return f"  {row.row:<52} {row.rival:<34} {row.note}"
    return (
        f"  {row.row:<52} {row.rival:<34} {figure(row.ours):>8} {figure(row.theirs):>8} "
        f"{row.unit:<14} {figure(row.ratio):>6} x  {row.note}"
    )


def where() -> str:
    """What was measured on what, in one sentence."""
    names = ("numpy", "torch", "ducc0", "healpy", "xarray", "zarr", "dask")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores of "
        f"{_processor()}, Python {platform.python_version()}, {versions}; {_products()}."
    )


def _products() -> str:
    """The kernels of the libraries that multiply matrices, which the environment may choose."""
    from threadpoolctl import threadpool_info

    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    kernels = sorted({f"{one['internal_api']} {one.get('architecture', '')}" for one in found})
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    return ", ".join(kernels) + (f" (OPENBLAS_CORETYPE={chosen})" if chosen else "")


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [one.split(":", 1)[1].strip() for one in lines if one.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _draw(rows: list[Row], path: Path) -> None:
    from deploy.bench.picture import draw

    if any(row.ratio for row in rows):
        draw(rows, path)


if __name__ == "__main__":
    sys.exit(main())
