"""Fields to normals and whitened: what is learned, from which times, and how a run resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from flows.cluster.map_units import UnitFailed
from flows.config.schema import ConfigError, RunConfig
from flows.report.compatibility import compatibility_curves
from flows.stages.content_keys import key_of
from flows.stages.generate.draws import gaussian_ensemble
from flows.stages.preprocess import block_sums as blocks
from flows.stages.preprocess import climatology, fitting, preprocess
from flows.stages.preprocess.normals import baseline_of, refit, tail_of
from pipeline.errors import UnusableData
from pipeline.fields.precision import LARGEST_ERROR
from pipeline.fields.whitening import color, to_fields, to_whitened
from pipeline.gaussian.fit import BASELINES, Moments
from pipeline.gaussian.spectra import compatibility, cross_spectrum
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

LMAX, SHARD = 7, 32
GRID = RingGrid.gaussian(12)
TIMES = xr.date_range("2000-01-01", "2002-12-31", freq="4D")
TRAIN, VALIDATION, TEST = (
    ("2000-01-01", "2001-12-31"),
    ("2002-01-01", "2002-06-30"),
    ("2002-07-01", "2002-12-31"),
)


def quiet(done, total, text):
    pass


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(fitting, "LARGEST_BLOCK", SHARD)


def make_fields():
    """A temperature with a seasonal cycle, a rain that is never negative, and a map of land."""
    generator = np.random.default_rng(0)
    latitude = np.deg2rad(np.asarray(GRID.latitudes))[:, None]
    season = 2.0 * np.pi * np.arange(len(TIMES))[:, None, None] / 91.3
    noise = generator.standard_normal((2, len(TIMES), *GRID.shape))
    smooth = noise + np.roll(noise, 1, axis=3) + np.roll(noise, 1, axis=2)
    temperature = 280.0 - 30.0 * np.sin(latitude) ** 2 - 10.0 * np.sin(latitude) * np.cos(season)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "ta": (
                dims,
                (temperature + smooth[0]).astype("f4"),
                {"units": "K", "long_name": "air"},
            ),
            "pr": (dims, (np.abs(smooth[1]) ** 3).astype("f4"), {"units": "kg m-2 s-1"}),
            "land": (("lat", "lon"), (generator.random(GRID.shape) < 0.3).astype("f4")),
        },
        coords={
            "time": TIMES,
            "lat": np.asarray(GRID.latitudes),
            "lon": np.arange(24) * 15.0,
        },
    )


def publish_fields(root, fields):
    layout, key = StoreLayout(str(root)), "f" * 64
    path, shards = layout.artifact("fields", key), {"time": SHARD}
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, fields[["ta", "pr"]].isel(time=unit.region["time"]))
    artifacts.publish(layout, "fields", key, units, {})
    return layout


def configure(root, **changes):
    return RunConfig.from_dict(
        {
            "run": {"root": str(root)},
            "source": {
                "paths": ["fields.nc"],
                "variables": ["ta", "pr"],
                "transform": {"pr": "cbrt"},
                "static": ["land"],
                **changes.get("source", {}),
            },
            "split": {
                "train": TRAIN,
                "validation": VALIDATION,
                "test": TEST,
                **changes.get("split", {}),
            },
            "spectral": {"lmax": LMAX, **changes.get("spectral", {})},
            "train": {"steps": 1},
            "generate": {"realizations": 1, "times": ["2002-01-15"]},
        }
    )


def run(root, fields, here, **changes):
    layout = publish_fields(root, fields)
    receipt = preprocess.run(configure(root, **changes), layout, here, quiet)
    normals = artifacts.open_published(layout, "normals").load()
    return receipt, normals, artifacts.open_published(layout, "whitened").load()


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "LARGEST_BLOCK", SHARD)
        return run(tmp_path_factory.mktemp("run"), make_fields(), here)


def test_whitened_holds_the_transform_of_every_time(made):
    _, normals, whitened = made
    assert whitened.x.dims == ("time", "channel", "coefficient")
    assert whitened.sizes == {"time": len(TIMES), "channel": 2, "coefficient": (LMAX + 1) ** 2}
    assert whitened.channel.values.tolist() == ["ta", "pr"]
    expected = to_whitened(make_fields(), normals)
    np.testing.assert_allclose(whitened.x, expected.x, atol=1e-6)
    np.testing.assert_allclose(whitened.phase, expected.phase)
    assert {"degree", "order"} <= set(whitened.coords)


def test_training_anomalies_have_mean_zero_unit_variance_and_the_stored_spectra(made):
    _, normals, whitened = made
    x = whitened.x.sel(time=slice(*TRAIN)).values.astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=0.05)
    moments = Moments.of(x)
    deviation = np.sqrt(normals.reference_spectrum.values)
    spectrum = np.einsum("dij,id,jd->ijd", moments.channel_covariance(), deviation, deviation)
    np.testing.assert_allclose(normals.data_spectrum, spectrum, rtol=1e-5, atol=1e-9)
    assert normals.attrs["samples"] == len(x)


def test_the_way_back_gives_fields_with_the_attributes_of_the_source(made):
    _, normals, whitened = made
    fields = to_fields(whitened.x.isel(time=slice(0, 8)), normals)
    assert fields.ta.attrs == {"units": "K", "long_name": "air"}
    assert float(np.abs(fields.ta - make_fields().ta[:8]).mean()) < 2.0
    assert float(fields.pr.min()) >= 0.0


def test_baselines_are_stored_as_laws_of_the_whitened_data(made):
    _, normals, whitened = made
    x = whitened.x.sel(time=slice(*TRAIN)).values.astype(np.float64)
    for name in BASELINES:
        assert normals[f"{name.replace('-', '')}_variance"].dims == ("channel", "coefficient")
        law = baseline_of(normals, name)
        assert law.name == name
        np.testing.assert_allclose(
            law.variance.sum(), np.square(x).sum(axis=(1, 2)).mean(), rtol=0.02
        )
        again = refit(normals, name, Moments.of(x))
        np.testing.assert_allclose(again.variance.sum(), law.variance.sum(), rtol=1e-4)


def test_static_features_are_standard_maps_of_the_sphere(made):
    _, normals, _ = made
    assert normals.feature.values.tolist() == [
        "ta_climatology",
        "pr_climatology",
        "ta_log_scale",
        "pr_log_scale",
        "land",
    ]
    np.testing.assert_allclose(normals.static[:, 0], 0.0, atol=1e-10)
    variance = np.square(normals.static.values).sum(axis=1) / (4.0 * np.pi)
    assert np.all((variance > 0.1) & (variance < 1.0 + 1e-9))


def test_the_receipt_speaks_of_compatibility_and_of_what_truncation_keeps(made):
    receipt, normals, whitened = made
    assert receipt.kind == "whitened"
    assert set(receipt.figures) == {
        "reference",
        "fit",
        "compatibility",
        "scale",
        "baselines",
        "variance_kept",
    }
    assert receipt.figures["scale"] == dict.fromkeys(["ta", "pr"], "the same at all times")
    assert "nats" in receipt.figures["compatibility"]["pr"]
    assert "nats" in receipt.figures["compatibility"]["together"]
    assert "kappa" in receipt.figures["fit"]["ta"]
    assert "shrunk" in receipt.figures["baselines"]["m-block"]
    assert all(0.1 < kept < 1.0 for kept in receipt.figures["variance_kept"].values())
    assert json.loads(normals.attrs["reference"]) == receipt.figures["reference"]
    assert whitened.attrs["normals_digest"] == normals.attrs["artifact_digest"]


def test_only_training_times_inform_the_normals_but_for_what_is_chosen(
    made, here, tmp_path, monkeypatch
):
    _, normals, _ = made
    monkeypatch.setattr(climatology, "chosen_scale", lambda tried, *_: (tried.known, [-1, -1]))
    fields = make_fields()
    later = fields.time > np.datetime64("2002-01-01")
    fields["ta"] = xr.where(later, 3.0 * fields.ta + 50.0, fields.ta, keep_attrs=True).transpose(
        *fields.pr.dims
    )
    fields["pr"] = xr.where(later, 2.0 * fields.pr, fields.pr, keep_attrs=True).transpose(
        *fields.pr.dims
    )
    _, altered, _ = run(tmp_path / "both", fields, here)
    assert any(
        not altered[name].equals(normals[name])
        for name in normals
        if name.startswith(("mblock", "averaged"))
    )
    chosen = ("mblock", "averaged")
    untouched = [name for name in normals.variables if not str(name).startswith(chosen)]
    for name in untouched:
        xr.testing.assert_identical(altered[name].variable, normals[name].variable)
    tested = make_fields()
    tested["ta"] = tested.ta.where(tested.time < np.datetime64(TEST[0]), 400.0)
    _, retested, _ = run(tmp_path / "test", tested, here)
    xr.testing.assert_equal(retested, normals)


def test_fields_that_vary_with_the_season_are_whitened_by_the_scale_of_their_season(here, tmp_path):
    fields = make_fields()
    season = 2.0 * np.pi * np.arange(len(TIMES)) / 91.3
    winter = xr.DataArray(np.exp(0.5 * np.cos(season)), dims="time", coords={"time": TIMES})
    mean = fields.ta.mean("time")
    swing = 10.0 * np.sin(np.deg2rad(fields.lat)) * np.cos(winter * 0.0 + season)
    usual = mean - swing
    fields["ta"] = (usual + winter * (fields.ta - usual)).transpose(*fields.pr.dims)
    fields["ta"].attrs = make_fields().ta.attrs
    receipt, normals, whitened = run(tmp_path, fields.astype("f4"), here)
    assert receipt.figures["scale"]["ta"].startswith("follows the season")
    assert receipt.figures["scale"]["pr"] == "the same at all times"
    np.testing.assert_allclose(normals.log_scale.sel(channel="ta", change=0).mean(), 0.5, atol=0.05)
    x = whitened.x.sel(channel="ta").isel(coefficient=slice(1, None))
    power = np.square(x).mean("coefficient")
    cold, warm = (power[np.cos(season) * sign > 0.7].mean() for sign in (1, -1))
    assert 0.85 < float(cold / warm) < 1.18  # e^2 = 7.4 in the fields
    back = to_fields(whitened.x.isel(time=slice(0, 60)), normals)
    left = (back.ta - fields.ta[:60]).std(("lat", "lon"))
    assert (
        float(left[np.cos(season[:60]) > 0.7].mean() / left[np.cos(season[:60]) < -0.7].mean())
        > 2.0
    )


def test_compatibility_is_stored_by_channel_and_degree(made):
    _, normals, _ = made
    power = np.diagonal(normals.data_spectrum, axis1=0, axis2=1).T
    np.testing.assert_allclose(normals.compatibility_ratio, power / normals.reference_spectrum)
    for channel in ("ta", "pr"):
        one = normals.sel(channel=channel)
        verdict = compatibility(one.compatibility_ratio.values, normals.attrs["samples"])
        np.testing.assert_allclose(one.compatibility_kl[-1], verdict.kl)
        np.testing.assert_allclose(one.compatibility_fisher[-1], verdict.fisher)
        assert float(one.compatibility_kl[0]) == 0.0
        assert np.all(np.diff(one.compatibility_kl) >= 0.0)


def test_compatibility_is_drawn(made):
    _, normals, _ = made
    ratios, sums = compatibility_curves(normals, {"ta": "air", "pr": "rain"}).axes
    assert {line.get_label() for line in ratios.lines} == {"air", "rain"}
    np.testing.assert_allclose(ratios.lines[0].get_ydata(), normals.compatibility_ratio[0, 1:])
    assert len(sums.lines) == 4


def test_a_joint_reference_takes_the_correlations_of_the_channels_away(here, tmp_path):
    fields = make_fields()
    fields["pr"] = fields.pr + 0.5 * np.abs(fields.ta - fields.ta.mean("time"))
    _, alone, _ = run(tmp_path / "alone", fields, here)
    receipt, normals, whitened = run(tmp_path / "joint", fields, here, spectral={"joint": True})
    factor = normals.reference_factor.values
    assert np.abs(factor[:, 1, 0]).max() > 0.0
    np.testing.assert_array_equal(factor[:, 0, 1], 0.0)
    np.testing.assert_array_equal(alone.reference_factor[:, 1, 0], 0.0)
    for each in (alone, normals):
        power = np.einsum("lcd,lcd->cl", *[each.reference_factor.values] * 2)
        np.testing.assert_allclose(each.reference_spectrum, power)
    np.testing.assert_allclose(normals.reference_spectrum, alone.reference_spectrum)
    x = whitened.x.sel(time=slice(*TRAIN))
    np.testing.assert_allclose(
        cross_spectrum(color(x, normals).values),
        normals.data_spectrum.values.transpose(2, 0, 1),
        rtol=1e-5,
        atol=1e-9,
    )
    inverse = np.linalg.inv(factor)
    expected = inverse @ normals.data_spectrum.values.transpose(2, 0, 1) @ inverse.swapaxes(1, 2)
    np.testing.assert_allclose(cross_spectrum(x.values), expected, rtol=1e-5, atol=1e-6)
    law = baseline_of(normals, "channels")
    degree, s = degrees(LMAX), law.variance.numpy()
    found = np.stack([np.sort(s[:, degree == n][:, 0]) for n in range(LMAX + 1)])
    np.testing.assert_allclose(found, np.linalg.eigvalsh(expected), rtol=1e-4)
    back = to_fields(whitened.x, normals)
    again = to_whitened(back.assign_coords(time=whitened.time), normals)
    np.testing.assert_allclose(again.x, whitened.x, atol=0.05)
    assert "together" in receipt.figures["compatibility"]


def test_covariances_that_do_not_fit_are_refused_before_the_first_pass(here, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.gaussian.fit.LARGEST_BYTES", 10_000)
    with pytest.raises(ConfigError, match=r"spectral.block_degree: .* 2 channels up to degree 7"):
        run(tmp_path, make_fields(), here)


def test_beyond_the_block_degree_nothing_is_kept_but_the_channels_of_each_degree(
    made, here, tmp_path
):
    receipt, normals, whitened = run(tmp_path, make_fields(), here, spectral={"block_degree": 3})
    assert normals.attrs["block_degree"] == 3 and made[1].attrs["block_degree"] == LMAX
    assert "block degree" not in made[0].figures
    assert "up to degree 3 of 7" in receipt.figures["block degree"]
    assert normals["averaged_across"].sizes == {"averaged_across_0": 4}
    assert normals["mblock_beyond"].shape == (LMAX - 3, 2, 2)
    np.testing.assert_array_equal(whitened.x, made[2].x)
    x = torch.from_numpy(whitened.x.values[:5].astype(np.float64))
    x[..., 16:] = 0.0
    for name in ("m-block", "averaged"):
        y = baseline_of(normals, name).rotate(x)
        np.testing.assert_allclose(y.square().sum(), x.square().sum(), rtol=1e-10)
        assert not y[..., 16:].any() and y[..., :16].any()
    moments = Moments.of(whitened.x.sel(time=slice(*TRAIN)).values, 3)
    again, fields = refit(normals, "averaged", moments), torch.from_numpy(whitened.x.values[:5])
    expected = baseline_of(normals, "averaged").log_density(fields)
    np.testing.assert_allclose(again.log_density(fields), expected, rtol=1e-3)


@pytest.mark.parametrize("degree", [3, 8])
def test_a_tail_beyond_the_block_degree_is_drawn_all_the_same(here, tmp_path, degree):
    """Below lmax nothing is left of its law; within the tail the part below the block degree is."""
    asked = {"tail": 9, "block_degree": degree}
    _, normals, _ = run(tmp_path, make_fields(), here, spectral=asked)
    tail, generator = tail_of(normals), np.random.default_rng(0)
    x, white = generator.standard_normal((2, 4, 2, 64)), generator.standard_normal((4, 2, 36))
    drawn = tail.draw(x[0], white)
    np.testing.assert_array_equal(drawn[..., 17:], white[..., 17:])
    assert (tail.draw(x[1], white) == drawn).all() == (degree == 3)


def test_the_precision_and_what_decided_it_are_recorded(made):
    _, normals, _ = made
    assert normals.attrs["precision"] == "float32"
    assert 0.0 < normals.attrs["float32_error"] < LARGEST_ERROR


def test_a_worker_opens_what_it_reads_once(made, monkeypatch, tmp_path):
    """Units after the first one cost their own work only; another artifact is opened anew."""
    _, normals, whitened = made
    layout = publish_fields(tmp_path, make_fields())
    source = artifacts.published(layout, "fields")
    path, precision = layout.artifact("normals", "e" * 64), normals.attrs["precision"]
    plain = normals.drop_attrs().assign_attrs(lmax=LMAX, precision=precision)
    artifacts.create(path, plain, chunks={}, shards={})
    constants = artifacts.publish(layout, "normals", "e" * 64, [], {})
    opened, written, opening = [], [], artifacts.open_artifact

    def recorded(artifact):
        opened.append(artifact.kind)
        return opening(artifact)

    monkeypatch.setattr(artifacts, "open_artifact", recorded)
    monkeypatch.setattr(
        artifacts,
        "write_unit",
        lambda path, unit, dataset: written.append(dataset["x"].values),
    )
    for unit in artifacts.plan_units({"time": len(TIMES)}, {"time": SHARD}):
        blocks.write_whitened(tmp_path, source, constants, unit)
    assert sorted(opened) == ["fields", "normals"]
    np.testing.assert_array_equal(np.concatenate(written), whitened.x)
    blocks.write_whitened(tmp_path, replace(source, digest="other"), constants, unit)
    assert opened[2:] == ["fields"]


def test_a_killed_run_keeps_what_it_has_and_ends_in_the_same_bytes(made, here, tmp_path):
    receipt, normals, _ = made
    layout, config = publish_fields(tmp_path, make_fields()), configure(tmp_path)

    def die(done, total, text):
        if text == "whitening" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess.run(config, layout, here, die)
    assert artifacts.published(layout, "normals").digest == normals.attrs["artifact_digest"]
    assert artifacts.published(layout, "whitened") is None
    counts = []
    resumed = preprocess.run(config, layout, here, lambda *told: counts.append(told))
    assert {text for _, _, text in counts} == {"whitening"}
    assert counts[0][0] >= 3
    assert resumed.digest == receipt.digest
    assert resumed.key == receipt.key == key_of("preprocess", config, layout)


def test_masked_cells_need_a_declared_policy_and_are_then_remembered(here, tmp_path):
    fields = make_fields()
    fields["ta"] = fields.ta.where(fields.land == 0)
    with pytest.raises(
        UnusableData, match=r'ta is missing in .*source.fill = \{ ta = "harmonic" \}'
    ) as refusal:
        run(tmp_path / "refused", fields, here)
    assert refusal.value.exit_code == 10
    changes = {"source": {"fill": {"ta": "harmonic"}}}
    _, normals, whitened = run(tmp_path / "filled", fields, here, **changes)
    np.testing.assert_array_equal(normals.mask.sel(channel="ta"), fields.land)
    assert np.isfinite(whitened.x).all()


def test_a_given_reference_is_used_as_it_is(here, tmp_path):
    reference = {"kappa": 3.0, "beta": 1.0, "amplitude": 100.0}
    _, normals, _ = run(tmp_path, make_fields(), here, spectral={"reference": reference})
    degree = np.arange(LMAX + 1)
    expected = 100.0 * (9.0 + degree * (degree + 1.0)) ** -2.0
    np.testing.assert_allclose(normals.reference_spectrum, np.stack([expected] * 2))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"spectral": {"lmax": 12}}, ConfigError, "spectral.lmax: expected 4 to 11"),
        ({"source": {"static": ["orog"]}}, UnusableData, "no map 'orog'"),
        (
            {"split": {"train": ("1990-01-01", "1991-12-31")}},
            UnusableData,
            "split.train: .* 1990-01-01",
        ),
        (
            {"split": {"train": ("2000-01-01", "2000-02-28")}, "spectral": {"harmonics": 1}},
            UnusableData,
            "spectral.harmonics: expected at most 0",
        ),
    ],
)
def test_what_the_data_cannot_give_is_refused_by_its_key(changes, kind, message, here, tmp_path):
    with pytest.raises(kind, match=message):
        run(tmp_path, make_fields(), here, **changes)


def test_without_fields_the_remedy_is_named(tmp_path):
    with pytest.raises(artifacts.IncompleteArtifact, match="spherescore ingest"):
        key_of("preprocess", configure(tmp_path), StoreLayout(str(tmp_path)))


def test_ranks_are_fitted_to_training_times_and_gaussian_draws_are_dry_as_often(here, tmp_path):
    """In standard errors of independent draws."""
    fields = make_fields()
    rain = np.maximum(fields.pr ** (1 / 3) - 0.5 - fields.land, 0.0) ** 3
    fields["pr"] = rain.astype("f4").assign_attrs(fields.pr.attrs)
    _, normals, whitened = run(tmp_path, fields, here, source={"transform": {"pr": "rank"}})
    assert normals["rank_quantiles"].sel(ranked="pr").max() == rain.sel(time=slice(*TRAIN)).max()
    training = fields.pr.sel(time=slice(*TRAIN))
    np.testing.assert_allclose(
        normals.rank_share.sel(ranked="pr"), (training == 0.0).mean("time"), atol=1e-9
    )
    assert np.isfinite(whitened.x).all()
    layout, times = StoreLayout(str(tmp_path)), training["time"]
    draws = gaussian_ensemble(configure(tmp_path), layout, "channels", times, 4)
    assert float(draws.pr.min()) == 0.0
    share, dry = (training == 0.0).mean("time"), (draws.pr == 0.0).mean(("realization", "time"))
    error = np.sqrt(share * (1.0 - share) / (4 * len(times)))
    assert float(np.abs((dry - share) / error).mean()) < 2.0
    assert abs(float((dry - share).mean())) < 4.0 * float(error.mean()) / np.sqrt(20.0)


def test_a_logit_takes_its_bounds_from_the_unit_or_the_configuration(here, tmp_path):
    fields = make_fields()
    cloud = np.clip(fields.pr / fields.pr.max(), 0.0, 1.0)
    logit = {"source": {"transform": {"pr": "logit"}}}
    with pytest.raises(ConfigError, match=r"those of unit 'kg m-2 s-1' .* source.bounds.pr"):
        run(tmp_path / "none", fields, here, **logit)
    fields["pr"] = (100.0 * cloud).astype("f4").assign_attrs(units="%")
    _, normals, whitened = run(tmp_path / "percent", fields, here, **logit)
    assert normals.bounds.sel(channel="pr").values.tolist() == [0.0, 100.0]
    back = to_fields(3.0 * whitened.x[:8], normals)
    assert 0.0 <= float(back.pr.min()) < float(back.pr.max()) <= 100.0
    narrow = {"source": {"transform": {"pr": "logit"}, "bounds": {"pr": [0.0, 50.0]}}}
    with pytest.raises(
        UnitFailed, match=r"pr: values from .* declare source\.bounds\.pr"
    ) as refusal:
        run(tmp_path / "narrow", fields, here, **narrow)
    assert refusal.value.exit_code == 10


def test_draws_beside_a_coast_have_the_mean_and_the_deviation_of_the_data(here, tmp_path):
    """In standard errors of the draws, on an isotropic field with a continent and islands."""
    transform, generator = plan(GRID, LMAX, "float64"), np.random.default_rng(8)
    deviation = 1.0 / (1.0 + degrees(LMAX))
    x = deviation * generator.standard_normal((len(TIMES), (LMAX + 1) ** 2))
    fields, land = make_fields(), np.zeros(GRID.shape, bool)
    land[1:9, 3:14] = land[4:7, 17:20] = True
    anomalies = (10.0 + 3.0 * transform.synthesis(x)).astype("f4")
    fields["ta"] = fields.ta.copy(data=anomalies).where(~land)
    fill = {"fill": {"ta": "harmonic"}}
    _, normals, _ = run(tmp_path, fields, here, source=fill)
    np.testing.assert_array_equal(normals.mask.sel(channel="ta"), land)
    training = fields.ta.sel(time=slice(*TRAIN))
    config = configure(tmp_path, source=fill)
    draws = gaussian_ensemble(config, StoreLayout(str(tmp_path)), "m-block", training["time"], 8)
    np.testing.assert_array_equal(draws.ta.isnull().all(("realization", "time")), land)
    beside = sum(np.roll(land, step, axis) for step in (1, -1) for axis in (0, 1)).astype(bool)
    coast = beside & ~land
    standard = (draws.ta - training.mean("time")) / training.std("time")
    for moment, expected in ((standard, 0.0), (standard**2, 1.0)):
        by_draw = moment.values[..., coast].mean(axis=-1).ravel()
        error = by_draw.std() / np.sqrt(by_draw.size)
        assert error < 0.03
        assert abs(by_draw.mean() - expected) < 4.0 * error


def test_variables_that_follow_from_each_other_are_refused_by_name(here, tmp_path):
    fields = make_fields()
    fields["pr"] = (2.0 * fields.ta - 546.3).astype("f4").assign_attrs(units="K")
    with pytest.raises(UnusableData, match=r"ta and pr follow from each other.*Leave one"):
        run(tmp_path, fields, here, source={"transform": {}})


@pytest.mark.parametrize("most", [1, 7, 128, 256])
@pytest.mark.parametrize("shard", [1, 4, 48, 61, 256, 1024])
def test_units_are_whole_shards_of_the_fields_or_even_parts_of_one(most, shard):
    times = preprocess._unit_times(most, shard)
    assert 1 <= times <= most
    assert times % shard == 0 or shard % times == 0
    if shard == 256:
        assert times >= most / 2
