import numpy as np
import pytest
import xarray as xr

from pipeline.fields.places import Area, area_mean, cell_at
from pipeline.sphere.named_grids import grid_coordinates, grid_named

GRIDS = ["gaussian:32x64", "latlon:37x72", "healpix:16", "healpix:16:nested"]


def fields(name: str, function) -> xr.Dataset:
    grid = grid_named(name)
    values = function(*np.deg2rad(grid.coordinates))[None]
    coordinates = grid_coordinates(grid)
    return xr.Dataset({"z": (("time", *grid.dims), values, {"units": "m"})}, coordinates)


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_is_the_nearest_to_its_own_centre(name):
    grid = grid_named(name)
    latitude, longitude = (part.ravel() for part in grid.coordinates)
    for number in np.linspace(80, grid.size - 80, 12).astype(int):
        found = cell_at(grid, latitude[number], longitude[number] - 360.0)
        assert np.ravel_multi_index([*found.values()], grid.shape) == number


def test_a_place_just_west_of_greenwich_lies_in_the_first_cell():
    assert cell_at(grid_named("latlon:37x72"), 45.1, -0.1) == {"lat": 27, "lon": 0}


@pytest.mark.parametrize("name", GRIDS)
def test_means_of_a_cap_and_of_the_globe_are_those_of_the_integral(name):
    """sin(latitude) has mean 0 over the globe and 3/4 of a half over a cap from 30 degrees on."""
    data = fields(name, lambda lat, lon: np.sin(lat))
    assert float(area_mean(data, "z", Area())[0]) == pytest.approx(0, abs=1e-12)
    cap = area_mean(data, "z", Area(south=30.0))
    assert float(cap[0]) == pytest.approx(0.75, abs=0.02)
    assert cap.attrs["units"] == "m" and cap.dims == ("time",)


def test_an_area_may_lie_across_the_first_longitude_and_missing_cells_do_not_count():
    data = fields("latlon:36x72", lambda lat, lon: np.where(np.cos(lon) > 0, 1.0, 5.0))
    west = Area(south=-30, north=30, west=-20, east=20)
    assert float(area_mean(data, "z", west)[0]) == pytest.approx(1.0)
    holed = data.where(data["z"] < 2)
    assert float(area_mean(holed, "z", Area())[0]) == pytest.approx(1.0)


def test_an_area_without_a_cell_and_one_upside_down_are_refused():
    data = fields("latlon:37x72", lambda lat, lon: lat)
    with pytest.raises(ValueError, match="no cell of latlon 37 x 72"):
        area_mean(data, "z", Area(south=1.0, north=2.0))
    with pytest.raises(ValueError, match="south=10, north=-10"):
        Area(south=10, north=-10)
