"""Grids: whatever covers the sphere by rings is taken as it is, the rest is refused."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest
import xarray as xr

from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_of
from storage.sources.sources import open_source
from tests.storage.imitations import days, opened, refused, regular, row, values, write

NSIDE = 4


def cells(scheme: str = "nested", nside: int = NSIDE, dim: str = "cell") -> xr.Dataset:
    """Temperature on HEALPix whose value is 250 K plus the sine of its latitude."""
    base = ducc0.healpix.Healpix_Base(nside, {"nested": "NEST", "ring": "RING"}[scheme])
    height = np.cos(base.pix2ang(np.arange(12 * nside**2))[:, 0])
    field = (250 + height + np.zeros((6, 1))).astype(np.float32)
    attrs = {"units": "K", "standard_name": "air_temperature"}
    return xr.Dataset({"ta": (("time", dim), field, attrs)}, coords={"time": days()})


def positions(scheme: str, nside: int = NSIDE) -> tuple[np.ndarray, np.ndarray]:
    base = ducc0.healpix.Healpix_Base(nside, {"nested": "NEST", "ring": "RING"}[scheme])
    theta, phi = base.pix2ang(np.arange(12 * nside**2)).T
    return 90 - np.rad2deg(theta), np.rad2deg(phi)


def require_cells(fields: xr.Dataset, scheme: str, nside: int = NSIDE) -> None:
    """Cells carry their order, index and position, and the transforms find them there."""
    assert fields.ta.dims == ("time", "cell")
    assert fields.crs.attrs["grid_mapping_name"] == "healpix"
    assert fields.crs.attrs["indexing_scheme"] == scheme
    np.testing.assert_array_equal(fields.cell, np.arange(12 * nside**2))
    np.testing.assert_allclose(fields.ta[0], 250 + np.sin(np.deg2rad(fields.lat)), atol=1e-4)
    assert grid_of(fields) == RingGrid.healpix(nside, scheme)
    lat, lon = grid_of(fields).coordinates
    np.testing.assert_allclose(lat, fields.lat, atol=1e-9)
    np.testing.assert_allclose(lon, fields.lon, atol=1e-9)


def crs(**attrs: object) -> xr.Variable:
    return xr.Variable((), np.int32(0), attrs)


def cf(source: xr.Dataset, scheme: str, level: int = 2) -> xr.Dataset:
    source["healpix_crs"] = crs(
        grid_mapping_name="healpix", indexing_scheme=scheme, refinement_level=level
    )
    source.ta.attrs["grid_mapping"] = "healpix_crs"
    ids = np.arange(source.sizes["cell"])
    return source.assign_coords(index=("cell", ids, {"standard_name": "healpix_index"}))


@row("grid", "latitudes descending; longitudes from -180", "kept, noted")
def test_the_order_of_a_grid_is_kept(tmp_path):
    source = regular(lat=[67.5, 22.5, -22.5, -67.5], lon=np.arange(8) * 45.0 - 180)
    fields, report = opened(tmp_path, source)
    xr.testing.assert_equal(fields, source)
    assert {"latitudes descend, kept", "longitudes start at -180, kept"} <= set(report.notes)


@row("grid", "with poles, without, unequal latitudes", "kept")
@pytest.mark.parametrize(
    "lat", [np.linspace(-90, 90, 5), [-75, -30, 0, 30, 75], [-80, -30, 20, 70]]
)
def test_latitudes_may_be_unequal_and_poles_included(tmp_path, lat):
    fields, _ = opened(tmp_path, regular(lat=lat))
    np.testing.assert_allclose(fields.lat, lat)
    assert grid_of(fields).kind == "latlon"


@row("grid", "Gaussian latitudes rounded to float32 or to three digits", "recognised as Gaussian")
@pytest.mark.parametrize("nlat", [32, 94, 160, 640])
@pytest.mark.parametrize("rounded", [np.float32, lambda lat: np.round(lat, 3)])
def test_rounded_gaussian_latitudes_are_recognised(tmp_path, nlat, rounded):
    exact = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0]))
    fields, _ = opened(tmp_path, regular(1, lat=rounded(exact)[::-1]))
    grid = grid_of(fields)
    assert grid.kind == "gaussian"
    np.testing.assert_allclose(grid.latitudes, exact[::-1], atol=1e-12)


@row("grid", "longitudes from 20 to 377.5", "kept")
def test_longitudes_may_start_anywhere(tmp_path):
    fields, _ = opened(tmp_path, regular(lon=20 + np.arange(144) * 2.5))
    assert float(fields.lon[-1]) == 377.5
    assert grid_of(fields).first_longitudes[0] == 20.0


@row("grid", "longitudes from 0 to 179, then from -180", "kept")
def test_longitudes_may_jump_at_the_date_line(tmp_path):
    lon = (np.arange(8) * 45.0 + 180) % 360 - 180
    fields, _ = opened(tmp_path, regular(lon=lon))
    np.testing.assert_array_equal(fields.lon, lon)


@row("grid", "the first meridian again at 360, or two of them", "dropped, noted")
@pytest.mark.parametrize("count", [9, 10])
def test_repeated_meridians_are_dropped(tmp_path, count):
    fields, report = opened(tmp_path, regular(lon=np.arange(count) * 45.0))
    assert fields.sizes["lon"] == 8
    assert any("repeats 0, dropped" in note for note in report.notes)


@row("grid", "longitudes westward", "turned, noted")
def test_longitudes_westward_are_turned(tmp_path):
    source = regular().isel(lon=slice(None, None, -1))
    fields, report = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert "longitudes ran westward, turned" in report.notes
    cyclic = regular(lon=np.arange(9) * 45.0)
    fields, _ = opened(tmp_path, cyclic.isel(lon=slice(None, None, -1)))
    np.testing.assert_array_equal(fields.lon, np.arange(8) * 45.0)
    np.testing.assert_array_equal(fields.ta, cyclic.ta[:, :, :8])


@row("grid", "two-dimensional lat and lon that repeat one-dimensional ones", "used, noted")
def test_two_dimensional_coordinates_of_a_regular_grid(tmp_path):
    source = regular()
    lat, lon = np.meshgrid(source.lat, source.lon, indexing="ij")
    source = source.drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    source["lat2d"] = (("y", "x"), lat, {"units": "degrees_north"})
    source["lon2d"] = (("y", "x"), lon, {"units": "degrees_east"})
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.ta, regular().ta)
    np.testing.assert_array_equal(fields.lon, regular().lon)


@row("grid", "curvilinear (ocean models, rotated poles)", "refused: regrid")
def test_curvilinear_grids_are_refused(tmp_path):
    source = regular().drop_vars(["lat", "lon"]).rename(lat="rlat", lon="rlon")
    grid = np.meshgrid(np.linspace(-60, 60, 4), np.arange(8) * 45.0, indexing="ij")
    source["lat"] = (("rlat", "rlon"), grid[0] + grid[1] / 50, {"standard_name": "latitude"})
    source["lon"] = (("rlat", "rlon"), grid[1] + grid[0] / 9, {"standard_name": "longitude"})
    source["rlat"] = ("rlat", np.linspace(-60, 60, 4), {"standard_name": "grid_latitude"})
    source["rlon"] = ("rlon", np.arange(8) * 45.0, {"standard_name": "grid_longitude"})
    refused("curvilinear; regrid", write(tmp_path, source))


def bent(named: bool = True) -> xr.Dataset:
    """As ocean models write it: nominal axes, and the true positions of cells beside them."""
    source = regular().rename(lat="yh", lon="xh")
    lat, lon = np.meshgrid(source.yh, source.xh, indexing="ij")
    lat = lat + 20 * np.cos(np.deg2rad(lon)) * (lat > 40)
    for axis, unit in (("yh", "degrees_north"), ("xh", "degrees_east")):
        source[axis].attrs = {"units": unit, "long_name": "nominal"}
    source["geolat"] = (("yh", "xh"), lat, {"units": "degrees_north"})
    source["geolon"] = (("yh", "xh"), lon, {"units": "degrees_east"})
    if named:
        source.ta.encoding["coordinates"] = "geolat geolon"
    return source


@row(
    "grid",
    "true positions in two dimensions beside nominal axes (MOM6, NEMO), named by `coordinates` or "
    "not",
    "refused where they differ: regrid; `dims = { lat = ... }` takes the axes",
)
@pytest.mark.parametrize("named", [True, False])
def test_true_positions_are_believed_before_nominal_axes(tmp_path, named):
    path = write(tmp_path, bent(named))
    refused("curvilinear. *Regrid|the grid is curvilinear; regrid", path)
    fields, _ = open_source(path, ["ta"], dims={"lat": "yh", "lon": "xh"})
    np.testing.assert_array_equal(fields.lat, regular().lat)
    agreeing = regular().rename(lat="yh", lon="xh")
    lat, lon = np.meshgrid(agreeing.yh, agreeing.xh, indexing="ij")
    agreeing["geolat"] = (("yh", "xh"), lat, {"units": "degrees_north"})
    agreeing["geolon"] = (("yh", "xh"), lon + 360, {"units": "degrees_east"})
    if named:
        agreeing.ta.encoding["coordinates"] = "geolat geolon"
    fields, _ = open_source(write(tmp_path, agreeing, "b.nc"), ["ta"])
    np.testing.assert_array_equal(fields.lat, regular().lat)


def test_regular_positions_that_are_not_those_of_the_axes_are_refused(tmp_path):
    source = bent()
    lat, lon = np.meshgrid(regular().lat + 9.0, regular().lon, indexing="ij")
    source["geolat"], source["geolon"] = source.geolat.copy(data=lat), source.geolon.copy(data=lon)
    path = write(tmp_path, source)
    refused(r"9 degrees apart; say which is right: .source. dims = \{ lat = \"yh\" \}", path)
    assert open_source(path, ["ta"], dims={"lat": "yh", "lon": "xh"})[0].lat[0] == -67.5


@row(
    "grid",
    "a band of latitudes around the globe (CHIRPS, GLORYS)",
    "refused; with `band = true` the rows beyond it are missing values",
)
@pytest.mark.parametrize("descending", [False, True])
def test_a_band_of_latitudes_is_taken_as_a_globe_with_missing_rows(tmp_path, descending):
    whole = regular(lat=np.arange(-85.0, 90, 10))
    part = whole.sel(lat=slice(-55, 65))
    if descending:
        whole, part = (one.isel(lat=slice(None, None, -1)) for one in (whole, part))
    path = write(tmp_path, part)
    refused("the grid is regional.*band = true", path)
    fields, report = open_source(path, ["ta"], band=True)
    np.testing.assert_allclose(fields.lat, whole.lat)
    xr.testing.assert_equal(fields.ta.dropna("lat"), part.ta)
    assert report.missing["ta"].static
    assert any("5 rows of latitude lack beyond -55 and 65" in note for note in report.notes)
    with_pole = write(tmp_path, regular(lat=np.arange(-80.0, 91, 10)), "b.nc")
    assert open_source(with_pole, ["ta"], band=True)[0].lat.values[[0, -1]].tolist() == [-90, 90]
    unequal = write(tmp_path, regular(lat=[-50.0, -20, 0, 30]), "c.nc")
    refused("not equally spaced", unequal, band=True)
    little = write(tmp_path, regular(lat=np.arange(10.0, 60, 10)), "d.nc")
    refused("less than half of the globe", little, band=True)


@row("grid", "output of WRF", "refused by what it is: a region")
def test_wrf_is_named(tmp_path):
    source = regular().drop_vars(["lat", "lon"]).rename(lat="south_north", lon="west_east")
    place = np.broadcast_to(np.linspace(40.0, 50, 4)[:, None], (6, 4, 8))
    for name, unit in (("XLAT", "degree_north"), ("XLONG", "degree_east")):
        source[name] = (("time", "south_north", "west_east"), place, {"units": unit})
    source.attrs["MAP_PROJ"] = 1
    refused("output of WRF, on the projected grid of a region", write(tmp_path, source))


@row("grid", "unstructured cells, lists of stations", "refused: regrid")
def test_unstructured_grids_are_refused(tmp_path):
    points = regular().stack(ncells=("lat", "lon")).reset_index("ncells")
    refused("unstructured or a list of points; regrid", write(tmp_path, points))


@row("grid", "regional, latitudes or longitudes not in degrees, unequal longitudes", "refused")
@pytest.mark.parametrize(
    ("grid", "match"),
    [
        ({"lon": np.arange(8) * 10.0}, "regional"),
        ({"lon": [0.0, 187.5]}, "2 longitudes 187.5 apart reach from 0 to 187.5"),
        ({"lon": np.arange(10) * 36.9}, "regional"),
        ({"lat": [10.0, 20.0, 30.0]}, "regional"),
        ({"lon": [0, 45, 90, 135, 180, 225, 270, 300.0]}, "not equally spaced"),
        ({"lat": [-60.0, 20.0, 10.0, 60.0]}, "not strictly"),
        ({"lat": [-100.0, 0.0, 100.0]}, "not in degrees"),
        ({"lon": np.arange(8) * np.pi / 4}, "regional"),
    ],
)
def test_grids_that_do_not_cover_the_sphere_are_refused(tmp_path, grid, match):
    refused(match, write(tmp_path, regular(**grid)))


@row(
    "grid",
    "HEALPix by CF-1.13 (`grid_mapping_name`, `indexing_scheme`), ring or nested",
    "kept in its order",
)
@pytest.mark.parametrize("scheme", ["ring", "nested"])
def test_healpix_by_cf(tmp_path, scheme):
    fields, _ = opened(tmp_path, cf(cells(scheme), scheme))
    require_cells(fields, scheme)


@row("grid", "HEALPix by `healpix_nside` and `healpix_order` (easygems)", "kept in its order")
@pytest.mark.parametrize(("order", "scheme"), [("nest", "nested"), ("ring", "ring")])
def test_healpix_by_nside_and_order(tmp_path, order, scheme):
    attrs = {"healpix_nside": NSIDE, "healpix_order": order}
    source = cells(scheme).assign_coords(crs=("crs", [np.nan], attrs))
    source.ta.attrs["grid_mapping"] = "crs"
    fields, _ = opened(tmp_path, source)
    require_cells(fields, scheme)


@row("grid", "HEALPix by `cell_ids` (xdggs)", "kept in its order")
@pytest.mark.parametrize("scheme", ["ring", "nested"])
def test_healpix_by_cell_ids(tmp_path, scheme):
    source = cells(scheme, dim="cells")
    attrs = {"grid_name": "healpix", "level": 2, "indexing_scheme": scheme}
    source = source.assign_coords(cell_ids=("cells", np.arange(192), attrs))
    fields, _ = opened(tmp_path, source)
    require_cells(fields, scheme)


@row("grid", "HEALPix cells out of order, with their index", "put in order, noted")
def test_cells_are_put_in_the_order_of_their_index(tmp_path):
    shuffled = np.random.default_rng(0).permutation(192)
    fields, report = opened(tmp_path, cf(cells(), "nested").isel(cell=shuffled))
    require_cells(fields, "nested")
    assert "cells put in the order of index" in report.notes


@row("grid", "HEALPix that only `lat` and `lon` of the cells tell", "known by the positions, noted")
@pytest.mark.parametrize("scheme", ["ring", "nested"])
def test_healpix_by_positions(tmp_path, scheme):
    lat, lon = positions(scheme)
    source = cells(scheme, dim="values")
    source["lat"] = ("values", np.float32(lat), {"units": "degrees_north"})
    source["lon"] = ("values", np.float32((lon + 180) % 360 - 180), {"units": "degrees_east"})
    fields, report = opened(tmp_path, source)
    require_cells(fields, scheme)
    assert any("known by the positions" in note for note in report.notes)


@row("grid", "12 nside² cells and nothing said", 'refused; `[source] healpix = "nested"` says it')
def test_undeclared_healpix_is_declared(tmp_path):
    path = write(tmp_path, cells("nested", dim="x"))
    text = refused("HEALPix perhaps, but nothing says the order of its cells", path)
    assert '[source] healpix = "nested"' in text
    fields, _ = open_source(path, ["ta"], healpix="nested")
    require_cells(fields, "nested")


@row("grid", "HEALPix whose order and positions contradict each other", "refused")
def test_healpix_that_contradicts_itself_is_refused(tmp_path):
    lat, lon = positions("ring")
    source = cf(cells("ring"), "nested").assign_coords(lat=("cell", lat), lon=("cell", lon))
    refused("said to be in nested order, but their lat and lon", write(tmp_path, source))
    other = cf(cells("nested"), "nested", level=3)
    refused("refinement level 3 has 768 cells, cell has 192", write(tmp_path, other))
    path = write(tmp_path, cf(cells("nested"), "nested"))
    refused('source.healpix is "ring", but the file says nested', path, healpix="ring")


def test_healpix_stated_twice(tmp_path):
    source = cf(cells("nested"), "ring")
    attrs = {"grid_name": "healpix", "level": 2, "indexing_scheme": "nested"}
    source = source.assign_coords(cell_ids=("cell", np.arange(192), attrs))
    path = write(tmp_path, source)
    refused(r"said to be ring \(healpix_crs\) and nested \(cell_ids\)", path)
    fields, _ = open_source(path, ["ta"], healpix="nested")
    require_cells(fields, "nested")
    source.cell_ids.attrs["level"] = 3
    refused(r"said to be 2 \(healpix_crs\) and 3 \(cell_ids\)", write(tmp_path, source),
            healpix="nested")  # fmt: skip


@row(
    "grid",
    "HEALPix of which two things are said (`crs` ring, `cell_ids` nested)",
    'refused; `[source] healpix = "nested"` decides',
)
@pytest.mark.parametrize(("nest", "scheme"), [(True, "nested"), (False, "ring")])
def test_healpix_by_the_older_words_of_xdggs(tmp_path, nest, scheme):
    """`nest: False` says ring, and contradicts a grid mapping that says nested."""
    attrs = {"grid_name": "healpix", "nside": NSIDE, "nest": nest}
    ids = np.arange(192)
    path = write(
        tmp_path,
        cells(scheme, dim="cells").assign_coords(cell_ids=("cells", ids, attrs)),
        "a.zarr",
        zarr_format=2,
    )
    fields, _ = open_source(path, ["ta"])
    require_cells(fields, scheme)
    other = {"nested": "ring", "ring": "nested"}[scheme]
    source = cf(cells(scheme), other).assign_coords(cell_ids=("cell", ids, attrs))
    refused("the order of its HEALPix cells is said to be",
            write(tmp_path, source, "b.zarr", zarr_format=2))  # fmt: skip


def test_healpix_in_another_indexing_is_read_by_what_is_declared(tmp_path):
    path = write(tmp_path, cf(cells("ring"), "nuniq"))
    require_cells(open_source(path, ["ta"], healpix="ring")[0], "ring")


@row("grid", "HEALPix of a part of the sphere, or in another indexing", "refused")
def test_partial_healpix_is_refused(tmp_path):
    part = cf(cells(), "nested").isel(cell=slice(0, 48))
    refused("refinement level 2 has 192 cells, cell has 48", write(tmp_path, part))
    part = cf(cells(), "nested").isel(cell=slice(0, 50))
    refused("none of its dimensions .cell of 50. has 12 nside", write(tmp_path, part))
    odd = cf(cells(), "nuniq")
    refused("HEALPix in nuniq indexing; only ring and nested", write(tmp_path, odd))


@row("grid", "HEALPix levels and members beside the cells", "as on other grids")
def test_healpix_has_levels_too(tmp_path):
    source = cf(cells(), "nested")
    source["ta"] = source.ta.expand_dims(plev=[85000.0, 50000.0]).transpose("plev", "cell", "time")
    source["plev"].attrs["units"] = "Pa"
    fields, _ = open_source(write(tmp_path, source), ["ta@500"])
    require_cells(fields.rename({"ta@500": "ta"}), "nested")


@row(
    "grid",
    "files whose grids have another order (latitudes turned, longitudes from -180)",
    "put in the order of the first, noted",
)
def test_files_with_the_grid_in_another_order(tmp_path):
    whole = regular(6)
    write(tmp_path, whole.isel(time=slice(0, 3)), "a.nc")
    other = whole.isel(time=slice(3, 6), lat=slice(None, None, -1))
    other = other.assign_coords(lon=(other.lon + 180) % 360 - 180).sortby("lon")
    write(tmp_path, other, "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.ta, whole.ta)
    assert "b.nc: lat put in the order of a.nc" in report.notes


@row("grid", "files with different grids", "refused")
def test_files_with_different_grids_are_refused(tmp_path):
    write(tmp_path, regular(3), "a.nc")
    write(tmp_path, regular(3, "2000-01-04", lat=[-60.0, -20.0, 20.0, 60.0]), "b.nc")
    refused("b.nc: lat differs from that of a.nc", str(tmp_path / "*.nc"))
    write(tmp_path, regular(3, "2000-01-04", lat=[-60.0, 0.0, 60.0]), "b.nc")
    refused("b.nc: it has 3 lat, a.nc has 4", str(tmp_path / "*.nc"))


@row("grid", "a reduced Gaussian grid, spectral coefficients (GRIB)", "refused: regrid")
def test_rings_of_different_length_without_coordinates_are_refused(tmp_path):
    lat = np.repeat([60.0, 0.0, -60.0], [8, 16, 8])
    lon = np.concatenate([np.arange(8) * 45.0, np.arange(16) * 22.5, np.arange(8) * 45.0])
    attrs = {"units": "K"}
    source = xr.Dataset({"ta": (("time", "values"), values(6, 32), attrs)}, coords={"time": days()})
    source["latitude"] = ("values", lat, {"units": "degrees_north"})
    source["longitude"] = ("values", lon, {"units": "degrees_east"})
    refused("unstructured or a list of points; regrid", write(tmp_path, source))
