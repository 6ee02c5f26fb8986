"""The page and its pictures: projection, maps, self-containedness."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from jinja2 import UndefinedError
from PIL import Image

from flows.report import figures, writing
from flows.report import page as report
from flows.report.compatibility import compatibility_curves
from flows.report.maps import NO_DATA, Raster, coastlines, project, unproject
from flows.report.model_card import model_card
from flows.report.score_tables import SCORES
from flows.report.sheet import contact_sheet
from pipeline.scores.arena import FLOOR
from pipeline.sphere.named_grids import grid_coordinates, grid_named

OWNERS = ("model", "m-block", "channels", FLOOR)


def test_the_projection_is_inverted():
    longitude, latitude = np.meshgrid(np.linspace(-180, 180, 25), np.linspace(-89.9, 89.9, 31))
    found = unproject(*project(longitude, latitude))
    np.testing.assert_allclose(found[0], longitude, atol=1e-6)
    np.testing.assert_allclose(found[1], latitude, atol=1e-6)


def test_the_projection_keeps_areas():
    step = 1e-3
    for latitude in (0.0, 35.0, 80.0):
        corner = project(np.array([10.0]), np.array([latitude]))
        east = project(np.array([10.0 + step]), np.array([latitude]))
        north = project(np.array([10.0]), np.array([latitude + step]))
        u = np.array([east[0] - corner[0], east[1] - corner[1]])
        v = np.array([north[0] - corner[0], north[1] - corner[1]])
        area = (u[0] * v[1] - u[1] * v[0]).item()
        expected = np.deg2rad(step) ** 2 * np.cos(np.deg2rad(latitude))
        assert area == pytest.approx(expected, rel=1e-3)


def test_coastlines_lie_on_the_map():
    (right, _), (_, top) = project(np.array([180.0, 0]), np.array([0.0, 90]))
    points = np.concatenate(coastlines())
    assert len(points) > 3000
    assert np.all(np.abs(points) <= [right + 1e-9, top + 1e-9])


def gaussian_like(nlat: int = 16, nlon: int = 32, descending: bool = False) -> xr.DataArray:
    lat = np.linspace(-84, 84, nlat)[:: -1 if descending else 1]
    lon = np.arange(nlon) * 360 / nlon
    values = np.sin(np.deg2rad(lat))[:, None] * np.ones(nlon) + np.cos(np.deg2rad(lon))
    return xr.DataArray(values, dims=("lat", "lon"), coords={"lat": lat, "lon": lon})


@pytest.mark.parametrize("descending", [False, True])
def test_pixels_show_the_field_where_it_is(descending):
    field = gaussian_like(64, 128, descending)
    raster = Raster(field, width=200)
    pixels = raster(field)
    rows, columns = pixels.shape
    assert np.isnan(pixels[0, 0])
    middle = pixels[rows // 2, columns // 2]
    assert middle == pytest.approx(1.0, abs=0.05)  # equator, Greenwich
    assert pixels[rows // 2, 2] == pytest.approx(-1.0, abs=0.05)  # date line
    assert np.nanmean(pixels[-5:]) > np.nanmean(pixels[:5])  # north is up


@pytest.mark.parametrize("name", ["healpix:16", "healpix:16:nested"])
def test_cells_are_drawn_where_they_are(name):
    grid = grid_named(name)
    latitude, longitude = (np.deg2rad(degrees) for degrees in grid.coordinates)
    rings = gaussian_like(64, 128)
    field = xr.DataArray(
        np.sin(latitude) + np.cos(longitude), dims="cell", coords=grid_coordinates(grid)
    )
    difference = Raster(field, width=100)(field) - Raster(rings, width=100)(rings)
    assert np.isfinite(difference).sum() > 3000
    assert np.nanmax(np.abs(difference)) < 0.2 and np.nanstd(difference) < 0.02


def test_maps_reach_half_way_to_cells_without_data():
    field = gaussian_like(19, 36)
    field = xr.ones_like(field).assign_coords(lat=np.linspace(-90, 90, 19))
    pixels = Raster(field, width=400)(field.where(field.lat >= 0))
    rows = np.isfinite(pixels).any(axis=1)
    _, lowest = unproject(
        np.zeros(1),
        Raster(field, width=400).extent[3:]
        * (2 * (np.flatnonzero(rows)[:1] + 0.5) / len(rows) - 1),
    )
    assert lowest == pytest.approx(-5, abs=1)
    assert np.nanmax(np.abs(pixels - 1)) < 1e-12


@pytest.mark.parametrize(
    ("units", "standard_name", "expected"),
    [
        ("m s-1", "eastward_wind", (1.0, "m s⁻¹")),
        ("kg m-2 s-1", "precipitation_flux", (86400.0, "mm day⁻¹")),
        ("kg m-2 s-1", "water_evapotranspiration_flux", (1.0, "kg m⁻² s⁻¹")),
        ("1", "cloud_area_fraction", (1.0, "")),
        ("K", "air_temperature", (1.0, "K")),
    ],
)
def test_units_are_written_for_people(units, standard_name, expected):
    field = xr.DataArray(0.0, attrs={"units": units, "standard_name": standard_name})
    assert figures.units_of(field) == expected


def fields(dimension: str, number: int, seed: int) -> xr.DataArray:
    noise = np.random.default_rng(seed).standard_normal((number, 16, 32))
    coords = {"time": np.array(["2000-07-15", "2001-07-15", "2002-07-15"], "datetime64[ns]")}
    grid = gaussian_like()
    named = coords if dimension == "time" else {"realization": np.arange(number)}
    return xr.DataArray(
        grid.values + 0.1 * noise,
        dims=(dimension, "lat", "lon"),
        coords={**named, "lat": grid["lat"], "lon": grid["lon"]},
        attrs={"units": "K", "standard_name": "air_temperature", "long_name": "air temperature"},
    )


def test_the_picture_of_the_readme_is_small(tmp_path):
    path = tmp_path / "picture.png"
    figures.readme_picture(fields("time", 3, 0), fields("realization", 3, 1), path)
    assert path.stat().st_size < 400_000
    assert Image.open(path).width > 1000


def entry(value: float, ratio: float | None) -> dict:
    interval = None if ratio is None else {"value": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
    return {"value": value, "standard_error": 0.1, "ratio": interval, "excess": None}


@pytest.fixture
def card() -> dict:
    names = ("mean", "sd", "skewness", "q999", "tail", "spectrum", "crps", "spread", "ranks")
    entries = {owner: entry(1.0, None if owner == FLOOR else 1.2) for owner in OWNERS}
    about = {"long_name": "a <b> & c", "factor": 1.0, "display_units": "K", "derived": False}
    curve = {"value": [1.0] * 6, "low": [0.9] * 6, "high": [1.1] * 6}
    return {
        "title": "Fields of <nothing>",
        "key": "ab" * 32,
        "made": {"realizations": 4, "times": ["2002-07-15"], "training_fields": 99},
        "protocol": {
            "dates": ["2002-07-01", "2002-12-31"],
            "block": 2,
            "block_days": 15.0,
            "replicates": 100,
            "realizations": dict.fromkeys(OWNERS, 4),
            "lmax": 5,
            "grid": "a grid",
            "train": ["2000-01-01", "2001-12-31"],
            "test": ["2002-07-01", "2002-12-31"],
        },
        "variables": {"ta": about},
        "scores": {"ta": {name: dict(entries) for name in names}},
        "joint": {"energy_distance": {owner: entry(0.1, None) for owner in OWNERS}},
        "spectra": {"ta": {"degree": list(range(6)), "ratio": dict.fromkeys(OWNERS, curve)}},
        "ranks": {"ta": dict.fromkeys(OWNERS, [0.2] * 5)},
        "certificate": {
            "statement": "The divergence is smaller by at least 210 nats & so on.",
            "over": {
                "m-block": {"nats": 222.0, "low": 210.0, "high": 230.0, "per_coefficient": 6.2},
                "isotropic": {"nats": 999.0, "low": 990.0, "high": 1010.0, "per_coefficient": 28.0},
            },
            "baseline": "m-block",
            "best": {"name": "m-block", "choice": {"why": "5 fields & more"}},
            "chain": {"integrator": "gme", "steps": 3, "drawn_with": "gme"},
            "fields": 184,
            "draws": 2,
            "block": 15,
            "coefficients": 36,
            "per_degree": [37.0] * 6,
            "per_degree_error": [1.0] * 6,
            "per_variable": {"ta": 222.0},
            "per_variable_error": {"ta": 5.0},
            "per_time": [74.0] * 3,
            "times": [3.0, 1.0, 0.1, 0.0],
            "spectrum": [[[12.333] * 6]] * 3,
            "likelihood": {
                "over": {"m-block": {"nats": 231.0, "error": 12.0}},
                "fields": 8,
                "trace_error": 3.0,
            },
            "bounds": {"start": 27.0, "step": 1.25},
        },
        "memorisation": {"levels": [0.0, 0.5], "generated": [1.0, 1.1], "held_out": [1.0, 1.2]},
        "provenance": {
            "digests": {"fields": "1" * 64},
            "seconds": {"fields": None},
            "software": {"torch": "2"},
            "config": {"run": {"root": "<root>"}},
            "source": "somewhere",
        },
    }


class Balance(HTMLParser):
    """Tags that were opened and not closed, and what the page would load."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pictures(card: dict) -> dict[str, str]:
    titles = {"ta": "air temperature"}
    return {
        "spectra": figures.svg(figures.spectrum_ratios(card["spectra"], titles), "spectra"),
        "ranks": figures.svg(figures.rank_histograms(card["ranks"], titles), "ranks"),
        "certificate": figures.svg(
            figures.certificate_splits(card["certificate"], titles), "certificate"
        ),
        "fields/ta": figures.image(
            figures.side_by_side(
                fields("time", 3, 0), fields("realization", 3, 1), (Raster(gaussian_like()),) * 2
            ),
            "fields",
        ),
    }


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(card):
    page = report.render(card, pictures(card))
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert all(link.startswith(("#", "data:")) for link in balance.loads)
    assert not re.search(r"url\(\s*['\"]?http|<script|@import", page)


def test_the_page_shows_the_numbers_and_escapes_names(card):
    page = report.render(card, {})
    assert "+222 nats" in page
    assert "1.20" in page
    assert "a &lt;b&gt; &amp; c" in page and "<b> & c" not in page
    assert "&lt;root&gt;" in page


def test_all_templates_are_named_so_that_a_report_follows_from_them():
    folder = Path(writing.__file__).parent
    there = {str(file.relative_to(folder)) for file in (folder / "templates").iterdir()}
    assert there == set(writing.TEMPLATES)


def test_a_template_that_lacks_a_value_is_an_error_and_not_a_blank(card):
    del card["protocol"]["lmax"]
    with pytest.raises(UndefinedError, match="lmax"):
        report.render(card, {})


def test_the_scores_of_the_model_card_stand_under_their_names(card):
    card["provenance"]["digests"]["checkpoints"] = "2" * 64
    card["provenance"]["config"]["train"] = {"model": "network"}
    card["variables"]["ta"]["units"] = "K"
    text = model_card(card, {})
    assert (
        "| score | variable | error over noise floor |\n|---|---|---|\n| mean | ta | 1.20 |" in text
    )
    assert "\n\n\n" not in text and not re.search(r"[^|\n]\n\|", text)  # tables stand apart


def test_the_page_says_what_the_certificate_is_and_what_is_only_indicative(card):
    page = report.render(card, {})
    assert "at least 210 nats &amp; so on" in page
    assert "over the isotropic Gaussian, each variable alone" in page
    assert "231.0 ± 12.0" in page
    assert "at most 27 nats: rigorous" in page
    assert "about 1.25 nats: model-based" in page


def test_the_page_says_that_matched_spectra_are_imposed_and_only_of_those(card):
    """They are a property of the draws by construction, not a success of the learning."""
    learned = report.render(card, pictures(card))
    card["made"]["matched"] = True
    matched = report.render(card, pictures(card))
    for name in ("spectra", "scores"):
        section = re.search(rf'<section id="{name}">.*?</section>', matched, re.DOTALL)[0]
        assert "imposed, not learned" in section
    assert "imposed" not in learned
    card["provenance"]["digests"]["checkpoints"] = "2" * 64
    card["provenance"]["config"]["train"] = {"model": "network"}
    card["variables"]["ta"]["units"] = "K"
    assert "imposed, not learned" in model_card(card, {})
    card["made"]["matched"] = False
    assert "imposed" not in model_card(card, {})


def test_the_page_does_not_call_a_gaussian_law_the_best_but_the_one_we_know_how_to_fit(card):
    without = report.render(card, pictures(card))
    assert "5 fields &amp; more" in without
    part = {"nats": 101.0, "low": 95.0, "high": 107.0, "per_coefficient": 2.0}
    card["certificate"]["over"]["whole"] = part
    choice = {"own": 0.85, "sample": 0.25, "seasonal": 0.7}
    card["certificate"]["best"] = {"name": "whole", "choice": choice}
    page = report.render(card, pictures(card))
    assert "over the best Gaussian law we know how to fit</td>" in page
    assert "+101 nats" in page and "closer to the truth than the best Gaussian law we know" in page
    assert "0.25 of the covariance of all coefficients" in page
    for text in (without, page):
        assert "fitted alike in every version" in text and "over the m-block Gaussian" in text
        assert "of what that law misses of the covariance" in text


def test_the_quantile_is_said_to_rest_on_values_not_on_dates(card):
    assert "ten values of a band lie beyond it, often of one storm" in SCORES["q999"][1]
    card["scores"]["ta"]["q999"] = card["scores"]["ta"]["mean"]
    assert SCORES["q999"][1] in report.render(card, pictures(card))


def test_the_page_of_a_gaussian_model_has_no_empty_panels(card):
    assert "Where it comes from" in report.render(card, {})
    card["certificate"] |= {"per_degree": [0.0] * 6}
    card["provenance"]["config"]["train"] = {"model": "gaussian:m-block"}
    page = report.render(card, pictures(card))
    assert "Where it comes from" not in page
    assert "The model is the m-block Gaussian itself" in page
    assert "A Gaussian model learned the joint law" in page


def test_a_card_without_a_certificate_has_a_page(card):
    del card["certificate"]
    assert "Likelihood" not in report.render(card, {})


def test_without_a_noise_floor_the_page_says_so(card):
    del card["protocol"]["realizations"][FLOOR]
    for scores in (*card["scores"].values(), card["joint"]):
        for entries in scores.values():
            entries.pop(FLOOR)
            for each in entries.values():
                each["ratio"] = None
    assert "no noise floor" in report.render(card, {})


def test_equal_figures_give_equal_text(card):
    assert pictures(card) == pictures(card)


def test_many_variables_begin_with_a_picture_of_all_and_stay_one_page(card):
    """Thirteen variables: each picture is there, folded; the sentence names three of them."""
    made_of_one = pictures(card)
    names = [f"v{number}" for number in range(13)]
    about = card["variables"]["ta"]
    card["variables"] = {name: {**about, "long_name": f"variable {name}"} for name in names}
    for key in ("scores", "spectra", "ranks"):
        card[key] = dict.fromkeys(names, card[key]["ta"])
    card["made"]["grid"] = "healpix nside 32 (nested order)"
    sheet = contact_sheet(
        *(xr.Dataset(dict.fromkeys(names, fields(dim, 3, 0))) for dim in ("time", "realization")),
        dict.fromkeys(names, "air temperature"),
        (Raster(gaussian_like()),) * 2,
    )
    made = {f"fields/{name}": made_of_one["fields/ta"] for name in names}
    made["overview"] = figures.image(sheet, "all")
    page = report.render(card, made)
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert all(link.startswith(("#", "data:")) for link in balance.loads)
    fields_section = page[page.index('id="fields"') : page.index('id="scores"')]
    assert fields_section.count("<details>") == 13 and fields_section.count("<img") == 14
    assert "variable v0, variable v1, variable v2 and 10 more variables" in page
    assert "on a healpix nside 32 (nested order) grid" in page


def test_panels_of_many_variables_do_not_overlap(card):
    curve, ranks = card["spectra"]["ta"], card["ranks"]["ta"]
    for number in (2, 13, 20):
        names = {f"v{index}": "a rather long name of a variable" for index in range(number)}
        for figure in (
            figures.spectrum_ratios(dict.fromkeys(names, curve), names),
            figures.rank_histograms(dict.fromkeys(names, ranks), names),
        ):
            figure.canvas.draw()
            boxes = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
            assert len(boxes) == number
            for index, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_cells_without_data_are_grey():
    north = gaussian_like().lat > 0
    real, drawn = (fields(dim, 3, 0).where(north) for dim in ("time", "realization"))
    figure = figures.side_by_side(real, drawn, (Raster(real, width=100),) * 2)
    data = figures.image(figure, "x").partition("base64,")[2].partition('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        counted = sorted(picture.convert("RGB").getcolors(1 << 20), reverse=True)
    grey = [int(NO_DATA[at : at + 2], 16) for at in (1, 3, 5)]
    near = [np.abs(np.subtract(colour, grey)).max() < 4 for _, colour in counted]
    share = sum(count for (count, _), is_near in zip(counted, near, strict=True) if is_near)
    assert 0.2 < share / sum(count for count, _ in counted) < 0.5


@pytest.mark.parametrize("number", [3, 13])
def test_data_and_noise_have_a_legend_above_their_curves(number):
    names = [f"v{index}" for index in range(number)]
    ones = np.ones((number, 9))
    normals = xr.Dataset(
        {
            f"compatibility_{part}": (
                ("channel", "degree"),
                ones * (1 + np.arange(number))[:, None],
            )
            for part in ("ratio", "kl")
        },
        coords={"channel": names, "degree": np.arange(9)},
        attrs={"samples": 100},
    )
    figure = compatibility_curves(normals, dict.fromkeys(names, "a rather long name of a variable"))
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(axes.get_tightbbox().overlaps(box) for axes in figure.axes)
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == number
    assert box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1
