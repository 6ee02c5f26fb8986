"""Analysis and synthesis in numpy against ducc0, healpy, torch-harmonics and SHTns.

One thread, batches, float32 where the rival has it. The floor is what no transform of this kind
goes below: a real FFT of the same rings and one matrix product with the flops of the Legendre
stage, both hemispheres folded, measured in the same turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ducc0
import healpy
import numpy as np
from numpy.typing import NDArray

from deploy.bench import inputs
from deploy.bench.ours import RingGrid, plan, to_complex
from deploy.bench.rivals import NotInstalled, Rival, RivalFailed
from deploy.bench.rows import Row
from deploy.bench.timing import Call, in_turns, timed

DIRECTIONS = ("analysis", "synthesis")
BATCH = 64
GRIDS = {
    "64 x 128, regular": RingGrid.latlon(64, 128),
    "64 x 128, Gaussian": RingGrid.gaussian(64),
    "181 x 360, regular": RingGrid.latlon(181, 360),
    "180 x 360, Gaussian": RingGrid.gaussian(180),
    "721 x 1440, regular": RingGrid.latlon(721, 1440),
    "720 x 1440, Gaussian": RingGrid.gaussian(720),
    "HEALPix nside 64": RingGrid.healpix(64),
    "HEALPix nside 256": RingGrid.healpix(256),
}
INEXACT = 1e-2  # error of analysis beyond which a rival's is not the same transform


def _rivals(grid: RingGrid) -> tuple[str, ...]:
    if grid.kind == "healpix":
        return "ducc0", "healpy"
    return ("ducc0", "torch-harmonics", "shtns")[: 3 if grid.kind == "gaussian" else 2]


ROWS = tuple(
    Row(row=f"{direction}, {name}", rival=rival, unit="us/field", goal=1.0)
    for name, grid in GRIDS.items()
    for rival in _rivals(grid)
    for direction in DIRECTIONS
)

Fields = NDArray[np.float32]


def measure(quick: bool) -> Iterator[Row]:
    for name, grid in GRIDS.items():
        if quick and grid.size > 100_000:
            continue
        files = inputs.made(grid, grid.max_lmax, 8 if quick else BATCH, slope=0.0)
        x, fields = inputs.loaded(files)
        transform = plan(grid, grid.max_lmax)
        ours = {
            "analysis": timed(partial(transform.analysis, fields)),
            "synthesis": timed(partial(transform.synthesis, x)),
        }
        error = float(np.abs(transform.analysis(fields[:2]) - x[:2]).max())
        floor = _floor(grid, fields)
        for rival in _rivals(grid):
            rows = {d: _row(f"{d}, {name}", rival) for d in DIRECTIONS}
            try:
                yield from _against(rival, grid, files, ours, floor, rows, error, quick)
            except (NotInstalled, RivalFailed) as reason:
                yield from (row.absent(str(reason)) for row in rows.values())


def _against(
    rival: str,
    grid: RingGrid,
    files: tuple[Any, Any],
    ours: dict[str, Call],
    floor: tuple[list[Call], Call, float],
    rows: dict[str, Row],
    error: float,
    quick: bool,
) -> Iterator[Row]:
    """Measured rows of both directions against one rival."""
    process = None
    if rival in ("ducc0", "healpy"):
        x, fields = inputs.loaded(files)
        calls, facts = (_ducc0 if rival == "ducc0" else _healpy)(grid, x, fields)
        theirs = {name: timed(call) for name, call in calls.items()}
    else:
        process = Rival(
            rival,
            "transforms",
            files=[str(file) for file in files],
            shape=list(grid.shape),
            lmax=grid.max_lmax,
            gaussian=grid.kind == "gaussian",
        )
        theirs, facts = {name: process.call(name) for name in DIRECTIONS}, process.facts
    try:
        count = len(np.load(files[0], mmap_mode="r"))
        for direction, row in rows.items():
            ffts, gemm, gemms = floor
            best = in_turns(ours[direction], theirs[direction], gemm, *ffts, quick=quick)
            least = min(best[3:]) + gemms * best[2]
            yield row.measured(
                1e6 * best[0] / count,
                1e6 * best[1] / count,
                limit_share=least / best[0],
                note=_errors(grid, error, facts["error"]) if direction == "analysis" else "",
            )
    finally:
        if process:
            process.close()


def _errors(grid: RingGrid, ours: float, theirs: float) -> str:
    if grid.kind != "healpix" and theirs < INEXACT and ours < INEXACT:
        return ""
    return f"largest error of white coefficients: {ours:.1e}, theirs {theirs:.1e}"


def _floor(grid: RingGrid, fields: Fields) -> tuple[list[Call], Call, float]:
    """Calls of the FFT of all rings, one of which counts, and of a product, and how many of it."""
    side = 1024
    matrix = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    product = np.empty_like(matrix)
    half = (len(grid.points) + 1) // 2
    flops = 2.0 * half * (grid.max_lmax + 1) * (grid.max_lmax + 2) * len(fields)
    gemm = timed(partial(np.matmul, matrix, matrix, out=product))
    if grid.kind == "healpix":
        return [timed(_ring_ffts(grid, fields))], gemm, flops / (2.0 * side**3)
    nlat, nlon = grid.shape
    plain = np.empty((len(fields), nlat, nlon // 2 + 1), np.complex64)
    turned = np.empty(plain.shape[::-1], np.complex64).transpose(2, 1, 0)
    ffts = [partial(ducc0.fft.r2c, fields, axes=(2,), out=out) for out in (plain, turned)]
    return [timed(fft) for fft in ffts], gemm, flops / (2.0 * side**3)


def _ring_ffts(grid: RingGrid, fields: Fields) -> Callable[[], None]:
    """Rings of equal length that lie side by side are transformed together."""
    parts, start = [], 0
    points = np.asarray(grid.points)
    cuts = [0, *(np.flatnonzero(np.diff(points)) + 1), len(points)]
    for first, last in itertools.pairwise(cuts):
        stop = start + int(points[first:last].sum())
        parts.append(fields[:, start:stop].reshape(len(fields), last - first, points[first]))
        start = stop

    spectra = [np.empty((*p.shape[:2], p.shape[2] // 2 + 1), np.complex64) for p in parts]

    def run() -> None:
        for part, spectrum in zip(parts, spectra, strict=True):
            ducc0.fft.r2c(part, axes=(2,), out=spectrum)

    return run


def _ducc0(grid: RingGrid, x: Fields, fields: Fields) -> tuple[dict[str, Any], dict[str, float]]:
    lmax, alm = grid.max_lmax, to_complex(x).astype(np.complex64)
    if grid.kind == "healpix":
        geometry = ducc0.healpix.Healpix_Base(round((grid.size / 12) ** 0.5), "RING").sht_info()
        geometry |= {"lmax": lmax, "spin": 0, "nthreads": 1}
        maps = fields[:, None]
        calls = {
            "analysis": lambda: ducc0.sht.pseudo_analysis(
                map=maps, maxiter=20, epsilon=1e-6, **geometry
            )[0],
            "synthesis": lambda: ducc0.sht.synthesis(alm=alm[:, None], **geometry),
        }
        found = calls["analysis"]()[:, 0]
    else:
        north_first = np.ascontiguousarray(fields[:, ::-1])
        given = {"lmax": lmax, "spin": 0, "nthreads": 1}
        given["geometry"] = "GL" if grid.kind == "gaussian" else "CC"
        nlat, nlon = grid.shape
        calls = {
            "analysis": lambda: [
                ducc0.sht.analysis_2d(map=field[None], **given) for field in north_first
            ],
            "synthesis": lambda: [
                ducc0.sht.synthesis_2d(alm=one[None], ntheta=nlat, nphi=nlon, **given)
                for one in alm
            ],
        }
        found = np.stack([one[0] for one in calls["analysis"]()])
    return calls, {"error": float(np.abs(found - alm).max())}


def _healpy(grid: RingGrid, x: Fields, fields: Fields) -> tuple[dict[str, Any], dict[str, float]]:
    lmax, nside = grid.max_lmax, round((grid.size / 12) ** 0.5)
    maps, alm = fields.astype(np.float64), to_complex(x.astype(np.float64))
    calls = {
        "analysis": lambda: [healpy.map2alm(one, lmax=lmax) for one in maps],
        "synthesis": lambda: [healpy.alm2map(one, nside, lmax=lmax) for one in alm],
    }
    found = np.stack([healpy.map2alm(one, lmax=lmax) for one in maps[:2]])
    return calls, {"error": float(np.abs(found - alm[:2]).max())}


def _row(name: str, rival: str) -> Row:
    return next(row for row in ROWS if (row.row, row.rival) == (name, rival))
