"""Grids made of rings of equal latitude: latitude-longitude, Gaussian and HEALPix as one type.

A `RingGrid` is plain numbers. Its points lie in the order of the source's data: rings as the
latitudes run there (never flipped), eastward along each ring. Rings of equal length make a field
of shape (lat, lon); HEALPix makes a field of shape (cell,), its cells in ring or nested order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import ducc0
import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray

__all__ = ["FloatArray", "IntArray", "Kind", "Ordering", "RingGrid"]

IntArray = npt.NDArray[np.intp]
Kind = Literal["latlon", "gaussian", "healpix"]
Ordering = Literal["ring", "nested"]


@dataclass(frozen=True, kw_only=True)
class RingGrid:
    """Rings at `latitudes` [degrees_north], each of `points` cells at equal steps around the globe,
    eastward from `first_longitudes` [degrees_east]."""

    kind: Kind
    latitudes: tuple[float, ...]
    points: tuple[int, ...]
    first_longitudes: tuple[float, ...]
    ordering: Ordering = "ring"  # of cells in a field; nested on HEALPix only

    def __post_init__(self) -> None:
        lengths = len(self.latitudes), len(self.points), len(self.first_longitudes)
        if len(set(lengths)) > 1 or lengths[0] < 2:
            raise ValueError(
                "a grid needs two rings or more, and for each its latitude, points and first "
                f"longitude; got {lengths}"
            )
        if min(self.points) < 1:
            raise ValueError(f"every ring needs at least one point; got {min(self.points)}")
        if self.kind != "healpix" and len(set(self.points)) > 1:
            raise ValueError(f"a {self.kind} grid has rings of one length; got {set(self.points)}")
        if max(map(abs, self.latitudes)) > 90.0:
            raise ValueError(
                f"latitudes lie in [-90, 90]; got {min(self.latitudes)} to {max(self.latitudes)}"
            )
        steps = np.sign(np.diff(self.latitudes))
        if not (np.all(steps == 1) or np.all(steps == -1)):
            raise ValueError("latitudes must run strictly from one pole to the other")
        if self.ordering not in ("ring", "nested"):
            raise ValueError(f"cells are in 'ring' or 'nested' order; got {self.ordering!r}")
        if self.ordering == "nested":
            nside = max(self.points) // 4
            if self.kind != "healpix" or nside & (nside - 1):
                raise ValueError(
                    "only HEALPix with nside a power of two has a nested order; got "
                    f"{self.kind} with rings of up to {max(self.points)} points (nside {nside})"
                )

    @classmethod
    def from_coordinates(cls, lat: FloatArray, lon: FloatArray) -> RingGrid:
        """Recognise the grid of one-dimensional coordinates [degrees].

        Latitudes that agree with Gaussian or equidistant ones to a hundredth of a step are taken as
        exactly those: files often round their coordinates.

        Raises:
            ValueError: If the longitudes do not go eastward around the globe at equal steps, or the
                latitudes are not monotonic.
        """
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        if lat.ndim != 1 or lon.ndim != 1 or lat.size < 2 or lon.size < 2:
            raise ValueError(
                "a latitude-longitude grid has one-dimensional lat and lon of two points or more; "
                f"got shapes {lat.shape} and {lon.shape}. Regrid curvilinear data first"
            )
        step = 360.0 / lon.size
        advance = np.diff(lon) % 360.0
        if np.abs(advance - step).max() > 0.01 * step:
            raise ValueError(
                f"{lon.size} longitudes around the globe must advance by {step:.6g} degrees each; "
                f"these advance by {advance.min():.6g} to {advance.max():.6g}, from {lon[0]:.6g} "
                f"to {lon[-1]:.6g}. Regional grids are not supported; drop a repeated 0/360 one"
            )
        kind, latitudes = _recognise(lat)
        first = float(round(lon[0], 6) % 360.0)
        return cls(
            kind=kind,
            latitudes=tuple(map(float, latitudes)),
            points=(lon.size,) * lat.size,
            first_longitudes=(first,) * lat.size,
        )

    @classmethod
    def gaussian(cls, nlat: int, nlon: int | None = None) -> RingGrid:
        """Gauss-Legendre latitudes from south to north; nlon defaults to 2 nlat."""
        nlon = 2 * nlat if nlon is None else nlon
        return cls._regular("gaussian", _gaussian_latitudes(nlat), nlon)

    @classmethod
    def latlon(cls, nlat: int, nlon: int | None = None, poles: bool = True) -> RingGrid:
        """Equidistant latitudes from south to north, including the poles or half a step off them.

        nlon defaults to 2 (nlat - 1) with poles, else to 2 nlat.
        """
        nlon = 2 * (nlat - poles) if nlon is None else nlon
        return cls._regular("latlon", _equidistant_latitudes(nlat, poles), nlon)

    @classmethod
    def healpix(cls, nside: int, ordering: Ordering = "ring") -> RingGrid:
        """HEALPix, rings from north to south; Gorski et al. (2005), doi:10.1086/427976.

        In nested order (nside a power of two) cell i lies where `ring_positions[i]` says.
        """
        if nside < 1:
            raise ValueError(f"nside must be positive; got {nside}")
        ring = np.arange(1, 4 * nside)
        cap = np.minimum(ring, 4 * nside - ring)  # rings from the nearer pole
        polar = cap < nside
        height = np.where(
            polar, 1.0 - cap**2 / (3.0 * nside**2), (2.0 * nside - cap) * 2.0 / (3.0 * nside)
        )
        height = np.where(ring > 2 * nside, -height, height)
        count = np.where(polar, 4 * cap, 4 * nside)
        shifted = polar | ((ring - nside) % 2 == 0)
        first = np.where(shifted, 180.0 / count, 0.0)
        return cls(
            kind="healpix",
            latitudes=tuple(map(float, np.rad2deg(np.arcsin(height)))),
            points=tuple(map(int, count)),
            first_longitudes=tuple(map(float, first)),
            ordering=ordering,
        )

    @classmethod
    def _regular(cls, kind: Kind, latitudes: FloatArray, nlon: int) -> RingGrid:
        nlat = len(latitudes)
        return cls(
            kind=kind,
            latitudes=tuple(map(float, latitudes)),
            points=(nlon,) * nlat,
            first_longitudes=(0.0,) * nlat,
        )

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of a field."""
        return ("cell",) if self.kind == "healpix" else ("lat", "lon")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a field."""
        return (self.size,) if self.kind == "healpix" else (len(self.points), self.points[0])

    @property
    def size(self) -> int:
        return sum(self.points)

    @property
    def has_poles(self) -> bool:
        return max(map(abs, self.latitudes)) > 90.0 - 1e-9

    @property
    def symmetric(self) -> bool:
        """Whether the southern rings mirror the northern ones."""
        latitudes = np.asarray(self.latitudes)
        return bool(np.abs(latitudes + latitudes[::-1]).max() < 1e-9)

    @property
    def max_lmax(self) -> int:
        """Largest degree (inclusive) that analysis recovers exactly from band-limited fields."""
        if self.kind == "healpix":
            return 2 * (max(self.points) // 4)
        rings = sum(abs(latitude) < 90.0 - 1e-9 for latitude in self.latitudes)
        # A pole determines orders m = 0 only: m = 1 has lmax unknowns left for the other rings.
        by_latitude = rings if self.has_poles else rings - 1
        return min(by_latitude, (self.points[0] - 1) // 2)

    @cached_property
    def ring_weights(self) -> FloatArray:
        """Quadrature weight of one point of each ring; with `points` they sum to 4 pi.

        Gauss-Legendre and Clenshaw-Curtis or Fejér weights where the latitudes are such; the areas
        of latitude bands otherwise.
        """
        latitudes, points = np.asarray(self.latitudes), np.asarray(self.points)
        if self.kind == "healpix":
            return np.full(len(points), 4.0 * np.pi / self.size)
        nlat = len(latitudes)
        band: FloatArray
        if _close(np.sort(latitudes), _gaussian_latitudes(nlat)):
            band = np.polynomial.legendre.leggauss(nlat)[1]
        elif _close(np.sort(latitudes), _equidistant_latitudes(nlat, True)):
            band = _sine_series_weights(np.arange(nlat) * np.pi / (nlat - 1))
        elif _close(np.sort(latitudes), _equidistant_latitudes(nlat, False)):
            band = _sine_series_weights((np.arange(nlat) + 0.5) * np.pi / nlat)
        else:
            pole = 90.0 * np.sign(latitudes[-1] - latitudes[0])
            middle = 0.5 * (latitudes[1:] + latitudes[:-1])
            band = np.abs(np.diff(np.sin(np.deg2rad(np.concatenate([[-pole], middle, [pole]])))))
        weights: FloatArray = band * 2.0 * np.pi / points
        return weights

    @property
    def area(self) -> FloatArray:
        """Quadrature weights of all points, in the shape of a field; they sum to 4 pi."""
        return np.repeat(self.ring_weights, self.points).reshape(self.shape)

    @property
    def ring_positions(self) -> IntArray:
        """The place of each cell of a field, flat, if all rings followed each other."""
        positions: IntArray = np.arange(self.size)
        if self.ordering == "nested":
            nested = ducc0.healpix.Healpix_Base(max(self.points) // 4, "NEST")
            positions = nested.nest2ring(positions)
        return positions

    @property
    def coordinates(self) -> tuple[FloatArray, FloatArray]:
        """Latitude [degrees_north] and longitude [degrees_east] of all points, each of `shape`."""
        points = np.asarray(self.points)
        within = np.arange(self.size) - np.repeat(np.cumsum(points) - points, points)
        longitude = np.repeat(self.first_longitudes, points)
        longitude = longitude + 360.0 * within / np.repeat(points, points)
        latitude, positions = np.repeat(self.latitudes, points), self.ring_positions
        return latitude[positions].reshape(self.shape), longitude[positions].reshape(self.shape)

    def describe(self) -> str:
        """The grid in words, such as "gaussian 32 x 64"."""
        if self.kind == "healpix":
            return f"healpix nside {max(self.points) // 4} ({self.ordering} order)"
        return f"{self.kind} {len(self.points)} x {self.points[0]}"


def _recognise(lat: FloatArray) -> tuple[Kind, FloatArray]:
    """The ideal latitudes that `lat` rounds, or `lat` itself."""
    ascending = np.sort(lat)
    candidates: tuple[tuple[Kind, FloatArray], ...] = (
        ("gaussian", _gaussian_latitudes(lat.size)),
        ("latlon", _equidistant_latitudes(lat.size, True)),
        ("latlon", _equidistant_latitudes(lat.size, False)),
    )
    tolerance = min(0.01, 0.01 * 180.0 / lat.size)
    for kind, ideal in candidates:
        if np.abs(ascending - ideal).max() < tolerance:
            return kind, ideal if lat[-1] > lat[0] else ideal[::-1]
    return "latlon", lat


def _close(left: FloatArray, right: FloatArray) -> bool:
    return bool(np.abs(left - right).max() < 1e-9)


@lru_cache(maxsize=16)
def _gaussian_latitudes(nlat: int) -> FloatArray:
    """Read-only; kept, because each dataset whose grid is asked for is compared with them."""
    latitudes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0]))
    balanced: FloatArray = 0.5 * (latitudes - latitudes[::-1])
    balanced.flags.writeable = False
    return balanced


def _equidistant_latitudes(nlat: int, poles: bool) -> FloatArray:
    if poles:
        return np.linspace(-90.0, 90.0, nlat)
    latitudes = -90.0 + (np.arange(nlat) + 0.5) * 180.0 / nlat
    return 0.5 * (latitudes - latitudes[::-1])


def _sine_series_weights(colatitudes: FloatArray) -> FloatArray:
    """Weights that integrate cosine polynomials of these colatitudes exactly against sin."""
    degree = np.arange(colatitudes.size)
    integral = np.where(degree % 2 == 0, 2.0 / (1.0 - np.where(degree % 2, 0, degree) ** 2), 0.0)
    weights: FloatArray = np.linalg.solve(np.cos(np.outer(degree, colatitudes)), integral)
    return weights
