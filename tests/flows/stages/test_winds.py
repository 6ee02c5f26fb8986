"""Winds as vector fields: found by their names, exact both ways, spectra of the data in draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from flows.config.schema import ConfigError, RunConfig
from flows.stages.generate.draws import gaussian_ensemble
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.wind_pairs import wind_pairs
from flows.stages.trained_model import untrained
from flows.stages.verify.pictures import wind_titles
from pipeline.errors import UnusableData
from pipeline.fields.other_grid import placed_normals
from pipeline.fields.standardisation import Normals
from pipeline.fields.whitening import to_fields, to_whitened
from pipeline.gaussian.spectra import power_spectrum
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.stacked import analysis, synthesis
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

GRID, LMAX = RingGrid.gaussian(12), 7
TIMES = xr.date_range("2000-01-01", "2002-12-31", freq="4D")
TRAIN = slice("2000-01-01", "2001-12-31")
PAIR = ((0, 1),)


def configure(root="-", variables=("ta", "ua850", "va850"), **source):
    return RunConfig.from_dict(
        {
            "run": {"root": str(root)},
            "source": {"paths": ["-"], "variables": list(variables), **source},
            "split": {
                "train": ["2000-01-01", "2001-12-31"],
                "validation": ["2002-01-01", "2002-06-30"],
                "test": ["2002-07-01", "2002-12-31"],
            },
            "spectral": {"lmax": LMAX},
            "train": {"model": "gaussian:m-block"},
            "generate": {"realizations": 2, "times": ["2002-07-15"]},
        }
    )


def make_winds():
    """Isotropic winds, three times as rotational as divergent, about a solid-body rotation."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((len(TIMES), 2, (LMAX + 1) ** 2)) / (1.0 + degrees(LMAX))
    x[..., 0] = 0.0
    x[:, 1] *= 3.0
    latitude = np.deg2rad(np.asarray(GRID.latitudes))[:, None]
    return x, synthesis(GRID, PAIR, x) + np.stack([20.0 * np.cos(latitude), 0.0 * latitude])


def make_fields():
    _, winds = make_winds()
    dims = ("time", "lat", "lon")
    noise = np.random.default_rng(1).standard_normal((len(TIMES), *GRID.shape))
    attrs = {
        name: {"units": "m s-1", "standard_name": f"{name}_wind"}
        for name in ("eastward", "northward")
    }
    return xr.Dataset(
        {
            "ta": (dims, (280.0 + noise).astype("f4"), {"units": "K"}),
            "ua850": (dims, winds[:, 0], attrs["eastward"]),
            "va850": (dims, winds[:, 1], attrs["northward"]),
        },
        coords={"time": TIMES, "lat": np.asarray(GRID.latitudes), "lon": np.arange(24) * 15.0},
    )


def run(root, fields, here, **source):
    layout, key = StoreLayout(str(root)), "f" * 64
    path, shards = layout.artifact("fields", key), {"time": 64}
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, fields.isel(time=unit.region["time"]))
    artifacts.publish(layout, "fields", key, units, {})
    config = configure(root, **source)
    preprocess.run(config, layout, here, lambda *_: None)
    normals = artifacts.open_published(layout, "normals").load()
    return config, layout, normals, artifacts.open_published(layout, "whitened").load()


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), make_fields(), here)


def test_channels_are_the_parts_of_the_wind_and_fields_its_components(made):
    _, _, normals, whitened = made
    names = ["ta", "ua850,va850:divergent", "ua850,va850:rotational"]
    assert whitened.channel.values.tolist() == names
    assert normals["variable"].values.tolist() == ["ta", "ua850", "va850"]
    np.testing.assert_array_equal(normals.scale[1], normals.scale[2])
    np.testing.assert_array_equal(whitened.x[:, 1:, 0], 0.0)
    back = to_fields(whitened.x[:8], normals)
    assert list(back.data_vars) == ["ta", "ua850", "va850"]
    assert back.ua850.attrs["standard_name"] == "eastward_wind"


def test_a_network_corrects_nothing_in_the_degree_that_winds_do_not_have(made):
    config, _, normals, _ = made
    there = untrained(config, normals, torch.float32).there
    expected = np.ones((3, (LMAX + 1) ** 2))
    expected[1:, 0] = 0.0
    np.testing.assert_array_equal(there.numpy(), expected)


def test_winds_that_are_band_limited_after_scaling_come_back_exactly(made):
    _, _, normals, whitened = made
    fields = to_fields(whitened.x[:20], normals)
    again = to_whitened(fields, normals).x
    np.testing.assert_allclose(again[:, 1:], whitened.x[:20, 1:], atol=2e-4)
    original = make_fields().isel(time=slice(0, 20))
    for name in ("ua850", "va850"):
        error = float(np.sqrt(((fields[name] - original[name]) ** 2).mean()))
        assert error < 0.05 * float(
            original[name].std()
        )  # the scale is not quite the same everywhere


def test_draws_have_the_divergence_and_the_vorticity_of_the_data(made):
    """Power by degree of both parts of scaled anomalies, in standard errors of draws and data."""
    config, layout, normals, whitened = made
    times = whitened["time"].sel(time=TRAIN)
    draws = gaussian_ensemble(config, layout, "channels", times, 2)
    both = [draws.isel(realization=k, drop=True) for k in range(2)]
    drawn = np.concatenate([to_whitened(each, normals).x.values[:, 1:] for each in both])
    data = power_spectrum(whitened.x.sel(time=TRAIN).values[:, 1:])
    found = power_spectrum(drawn)
    expected = data.mean(axis=0)[:, 1:]
    error = found.std(axis=0)[:, 1:] / np.sqrt(len(found))
    assert np.abs((found.mean(axis=0)[:, 1:] - expected) / error).max() < 4.5
    raw = analysis(GRID, LMAX, PAIR, np.stack([draws.ua850, draws.va850], axis=2).astype("f8"))
    anomalies = power_spectrum(raw - raw.mean(axis=(0, 1)))[..., 1:].mean(axis=(0, 1))
    ratio = anomalies[1] / anomalies[0]
    np.testing.assert_allclose(ratio, 9.0, rtol=0.35)


def test_a_wind_turned_about_the_axis_is_turned_in_whitened_coordinates(made):
    """The law of every degree is that of the turned wind: power and cross power do not change."""
    _, _, normals, _ = made
    flat = normals.assign(
        scale=xr.ones_like(normals.scale),
        climatology=xr.zeros_like(normals.climatology),
    )
    flat.attrs["precision"] = "float64"
    fields = make_fields().isel(time=slice(0, 6))
    turned = fields.roll(lon=5)
    x, y = (to_whitened(each, flat).x.values for each in (fields, turned))
    np.testing.assert_allclose(power_spectrum(y), power_spectrum(x), rtol=1e-4, atol=1e-9)
    assert np.abs(y - x).max() > 0.1


def test_the_law_of_winds_moves_to_other_grids(made):
    _, _, normals, whitened = made
    same = placed_normals(normals, GRID)
    np.testing.assert_allclose(same.climatology, normals.climatology, atol=1e-8)
    other = placed_normals(normals, RingGrid.healpix(8))
    fields = to_fields(whitened.x[:4], other)
    assert Normals.of(other).pairs == ((1, 2),)
    speed = np.hypot(fields.ua850, fields.va850)
    source = to_fields(whitened.x[:4], normals)
    weight = GRID.area / (4.0 * np.pi)
    square = (weight * np.hypot(source.ua850, source.va850) ** 2).sum(("lat", "lon"))
    np.testing.assert_allclose((speed**2).mean("cell"), square, rtol=0.02)


def named(*names, standard=None):
    standard = standard or [""] * len(names)
    return xr.Dataset(
        {
            name: ("x", [0.0], {"units": "m s-1"} | ({"standard_name": each} if each else {}))
            for name, each in zip(names, standard, strict=True)
        }
    )


@pytest.mark.parametrize(
    ("names", "standard", "pairs"),
    [
        (("u", "v"), None, ((0, 1),)),
        (("va850", "t", "ua850"), ("northward_wind", "", "eastward_wind"), ((2, 0),)),
        (("u10", "v10", "u@850", "v@850"), None, ((0, 1), (2, 3))),
        (("uas", "vas", "uap"), None, ((0, 1),)),
        (("uwnd", "vwnd"), None, ((0, 1),)),
        (("UWND", "VWND", "air"), None, ((0, 1),)),
        (("U@859.5", "V@859.5"), None, ((0, 1),)),
        (("10m_u_component_of_wind", "10m_v_component_of_wind"), None, ((0, 1),)),
        (("east", "north"), ("eastward_wind", "northward_wind"), ((0, 1),)),
        (("U", "V"), ("x_wind", "y_wind"), ((0, 1),)),
        (("tauu", "tauv"), ("surface_downward_eastward_stress",) * 2, ()),
        (
            ("tauu", "tauv"),
            ("surface_downward_eastward_stress", "surface_downward_northward_stress"),
            ((0, 1),),
        ),
        (("ua850", "va500"), ("eastward_wind", "northward_wind"), ()),
        (("ta", "va850"), None, ()),
    ],
)
def test_pairs_are_found_by_standard_name_or_name(names, standard, pairs):
    assert wind_pairs(configure(variables=names), named(*names, standard=standard)) == pairs


def test_pairs_can_be_declared_and_switched_off(here, tmp_path):
    fields = named("a", "b", "u", "v")
    declared = configure(variables=("a", "b", "u", "v"), winds=[["b", "a"]])
    assert wind_pairs(declared, fields) == ((1, 0),)
    assert wind_pairs(configure(variables=("u", "v"), winds=[]), fields) == ()
    transformed = configure(variables=("u", "v"), transform={"u": "rank"})
    assert wind_pairs(transformed, fields) == ()
    fields["a"].attrs["units"] = "K"
    with pytest.raises(ConfigError, match=r"b is in 'm s-1', a in 'K'"):
        wind_pairs(declared, fields)
    _, _, normals, whitened = run(tmp_path, make_fields(), here, winds=[])
    assert whitened.channel.values.tolist() == ["ta", "ua850", "va850"]
    assert Normals.of(normals).pairs == ()


def test_components_with_holes_in_different_places_are_refused(here, tmp_path):
    fields = make_fields()
    fields["ua850"] = fields.ua850.where(fields.lon < 300.0)
    with pytest.raises(UnusableData, match=r"missing in different cells.*source\.winds = \[\]"):
        run(tmp_path, fields, here, fill="harmonic")


def test_a_pair_names_known_variables_without_a_transform():
    for winds, extra, message in (
        ([["u", "w"]], {}, r"source\.winds\[0\]: .*'w'"),
        ([["u", "v"]], {"transform": {"v": "cbrt"}}, r"without a transform, got 'v'"),
        ([["u", "v"], ["v", "u"]], {}, "each name once"),
    ):
        with pytest.raises(ConfigError, match=message):
            configure(variables=("u", "v"), winds=winds, **extra)
    assert replace(configure().source, winds=()).winds == ()


def test_the_parts_of_a_wind_have_titles_of_their_own():
    normals = xr.Dataset(
        coords={
            "channel": ["ta", "u,v:divergent", "u,v:rotational"],
            "variable": ("channel", ["ta", "u", "v"]),
        }
    )
    titles = {
        "ta": "temperature",
        "u": "eastward wind at 850 hPa",
        "v": "northward wind at 850 hPa",
    }
    assert wind_titles(normals, titles) == {
        "u,v:divergent": "divergent part of wind at 850 hPa",
        "u,v:rotational": "rotational part of wind at 850 hPa",
    }
