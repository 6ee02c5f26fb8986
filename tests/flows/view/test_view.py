"""The page of `spherescore view`: what it shows, to whom, and that nothing else is asked for."""

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.report.maps import project
from pipeline.sphere.named_grids import grid_coordinates, grid_named
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import label_ensemble
from storage.errors import IncompleteArtifact
from tests import browser

pytest.importorskip("panel", reason="`make test` installs it")

from flows.view import opened as looked_at
from flows.view.opened import Opened
from flows.view.page import ANOMALY, AROUND, BELOW, Page
from flows.view.server import REFUSED, serve

CELLS = "healpix:8:nested"
LEVELS = {"z": 0.0, "h@850": 2e4, "h@500": 3e4, "g@500": 5e4}  # variables, and their offsets


def put(root: str, kind: str, data: xr.Dataset) -> None:
    layout, key = StoreLayout(root), f"{len(kind):064d}"
    path, shards = layout.artifact(kind, key), {"time": data.sizes["time"]}
    if "realization" in data.dims:
        shards = {"realization": 1, **shards}
    artifacts.create(path, data, chunks=shards, shards=shards)
    units = artifacts.plan_units({dim: data.sizes[dim] for dim in shards}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, data.reset_coords(drop=True).isel(unit.region))
    artifacts.publish(layout, kind, key, units, {})


def made(root: str, drawn_grid: str, realizations: int = 6) -> str:
    """A run whose values are known: real ones are the day of the year, drawn ones 1000 times
    their number on top, both with the sine of the latitude and what `LEVELS` adds."""
    days = xr.date_range("2000-01-01", "2001-12-31", freq="D")
    bounds = np.stack([days.values, days.values + np.timedelta64(1, "D")], 1)
    attrs = {"standard_name": "geopotential_height", "units": "m", "long_name": "height"}

    def on(name: str, times: Any, offsets: Any) -> xr.Dataset:
        grid = grid_named(name)
        sine = np.sin(np.deg2rad(grid.coordinates[0]))
        values = np.asarray(offsets, "f4")[..., None] + sine.ravel().astype("f4")
        dims = ("realization", "time", *grid.dims)[-len(values.shape[:-1]) - len(grid.dims) :]
        shaped = values.reshape(*values.shape[:-1], *grid.shape)
        coordinates = {"time": times, **grid_coordinates(grid)}
        fields = {name: (dims, shaped + LEVELS[name], attrs) for name in LEVELS}
        return xr.Dataset(fields, coordinates)

    real = on("gaussian:16x32", days, days.day_of_year.to_numpy())
    put(root, "fields", real)
    about = xr.Dataset(
        {name: ("time", np.zeros(len(days)), attrs) for name in LEVELS},
        {"time": ("time", days, {"bounds": "time_bnds"}), "time_bnds": (("time", "bnds"), bounds)},
    )
    for kind, chosen in (("ensemble", [180, 545]), ("sequences", range(180, 200))):
        numbers, chosen = np.arange(realizations), list(chosen)
        offsets = 1000.0 * numbers[:, None] + days.day_of_year.to_numpy()[None, chosen]
        fields = on(drawn_grid, days[chosen], offsets)
        put(root, kind, label_ensemble(fields, about.isel(time=chosen), realizations=numbers))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(str(tmp_path_factory.mktemp("viewed") / "run"), CELLS)


@pytest.fixture
def page(root: str) -> Page:
    return Page(Opened.of(root))


def titles(page: Page) -> list[str]:
    return [one.figure.title.text for one in page.maps]


def pixels(page: Page, number: int) -> Any:
    return page.maps[number].image.data["image"][0]


def test_realizations_stand_above_real_days_of_their_season(page: Page) -> None:
    assert titles(page)[:3] == ["realization 0", "realization 1", "realization 2"]
    assert titles(page)[3:] == ["real, 2000-06-19", "real, 2000-07-09", "real, 2001-07-10"]
    middle = pixels(page, 1).shape[0] // 2
    across = pixels(page, 1)[middle]
    day = int(Opened.of(page.opened.root).drawn["dates"]["time"].dt.dayofyear[0])
    np.testing.assert_allclose(np.nanmean(across), 1000 + day, atol=0.3)  # HEALPix, as a map
    page.first.value = 3
    assert titles(page)[:3] == ["realization 3", "realization 4", "realization 5"]


def test_a_level_is_chosen_beside_its_variable_and_kept_where_the_next_one_has_it(
    page: Page,
) -> None:
    def middle() -> float:
        image = pixels(page, 0)
        return float(np.nanmean(image[image.shape[0] // 2]))

    assert list(page.variable.options.values()) == ["z", "h", "g"]
    assert not page.level.visible and page.name == "z"
    page.variable.value = "h"
    assert page.level.visible and page.name == "h@850"
    assert middle() == pytest.approx(20_180, abs=5)
    page.level.value = "h@500"
    assert middle() == pytest.approx(30_180, abs=5)
    page.variable.value = "g"
    assert page.name == "g@500" and middle() == pytest.approx(50_180, abs=5)
    assert page.place_as_csv().readline() == "source,g@500 [m]\n"


def test_days_of_a_sequence_play_beside_real_days_that_follow_each_other(page: Page) -> None:
    page.kind.value = "sequences"
    before = titles(page)[3:]
    page.day.value = 4
    after = titles(page)[3:]
    apart = [
        np.datetime64(b[6:]) - np.datetime64(a[6:]) for a, b in zip(before, after, strict=True)
    ]
    assert apart == [np.timedelta64(4, "D")] * 3
    assert "2000-07-03" in page.about.object


def test_an_anomaly_is_what_is_left_of_the_mean_of_real_days(page: Page) -> None:
    page.mode.value = ANOMALY
    assert np.nanmax(np.abs(pixels(page, 3))) < 12  # real days are 10 days from the middle at most
    np.testing.assert_allclose(np.nanmean(pixels(page, 2)), 2000, atol=12)
    assert page.mapper.low == -page.mapper.high


def test_a_click_chooses_the_place_and_the_numbers_there_are_those_of_the_store(page: Page) -> None:
    (x,), (y,) = project(np.array([13.8]), np.array([45.6]))
    page._tapped(SimpleNamespace(x=x, y=y))
    assert (page.latitude.value, page.longitude.value) == (45.6, 13.8)
    drawn = page.samples(page.at_place)["generated"]
    store = page.opened.drawn["dates"]["z"].isel(time=0)
    cells = np.rad2deg(np.arcsin(drawn - np.round(drawn)))
    assert len(drawn) == store.sizes["realization"]
    assert np.isin(drawn.astype("f4"), store.to_numpy()).all()
    assert np.ptp(np.diff(drawn)) < 1e-3 and cells.size
    page._tapped(SimpleNamespace(x=10 * x + 99, y=y))  # beside the globe: nothing happens
    assert page.latitude.value == 45.6


def test_real_numbers_are_all_days_of_the_season_of_all_years(page: Page) -> None:
    real = page.samples(page.over_area)["real"]
    assert len(real) == 2 * (2 * looked_at.SEASON + 1)
    day = int(page.opened.drawn["dates"]["time"].dt.dayofyear[0])
    np.testing.assert_allclose(sorted(real)[::2], np.arange(day - 10, day + 11), atol=1e-4)


def test_of_a_thousand_realizations_an_even_choice_is_read(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looked_at, "MOST", 3)
    sample = Opened.of(page.opened.root).sample("dates", "z", 0)
    assert sample["realization"].to_numpy().tolist() == [0, 2, 5]


@pytest.mark.parametrize("below", list(BELOW))
@pytest.mark.parametrize("kind", ["dates", "sequences"])
def test_every_choice_below_the_maps_has_something_to_show(
    page: Page, kind: str, below: str
) -> None:
    page.kind.value, page.below.value, page.area.value = kind, below, AROUND
    for one in page.pictures.objects:
        assert one.object.renderers, one.object.title.text


def test_what_is_shown_can_be_taken_away(page: Page) -> None:
    with xr.open_dataset(io.BytesIO(page.shown_as_netcdf().read()), engine="h5netcdf") as maps:
        assert maps["z_drawn"].sizes["realization"] == 3 and maps["z_real"].sizes["real_day"] == 3
    lines = page.place_as_csv().read().splitlines()
    assert lines[0] == "source,z [m]" and len(lines) == 1 + 6 + 42


def test_a_bucket_is_looked_at_like_a_directory(bucket: str) -> None:
    page = Page(Opened.of(made(f"s3://{bucket}/run", "latlon:19x36", realizations=2)))
    assert titles(page)[:2] == ["realization 0", "realization 1"]


def test_a_run_that_has_drawn_nothing_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(IncompleteArtifact, match="run `spherescore generate` first"):
        Opened.of(str(tmp_path))


@pytest.fixture(scope="module")
def address(root: str) -> Iterator[str]:
    told: list[str] = []
    thread = serve(root, "a-token", 0, told=told.append, threaded=True)
    port, end = int(told[0].split(":")[2].split("/")[0]), time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < end
        time.sleep(0.1)
    yield told[0]
    thread.stop()


def test_without_the_token_there_is_a_sentence_and_no_data(address: str) -> None:
    from bokeh.client import pull_session

    assert address.startswith("http://127.0.0.1:") and address.endswith("/view?token=a-token")
    place = address.partition("?")[0]
    for given, is_there in (
        ({"token": "a-token"}, True),
        ({"token": "another"}, False),
        ({}, False),
    ):
        session = pull_session(url=place, arguments=given)
        text = str(session.document.to_json())
        session.close()
        assert ("First realization" in text) == is_there
        assert (REFUSED in text) != is_there


@pytest.mark.skipif(browser.found() is None, reason="needs Chromium")
def test_a_browser_shows_the_page_and_asks_nobody_else(address: str, tmp_path: Path) -> None:
    with browser.tab(tmp_path / "profile") as tab:
        tab.open(address)
        place = (
            "window.Bokeh && Bokeh.documents.length && [...Bokeh.documents[0]._all_models.values()]"
            ".find(one => String(one.title).startsWith('Latitude'))?.value"
        )
        before = tab.wait_for(place)
        tab.click(460, 165)  # a little south-east of the cross on the first map
        tab.wait_for(f"{place} != {before}")
        assert [one for one in tab.asked if not _is_ours(one)] == []
        assert tab.said == []
        tab.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


FOCUSED = """(() => {
  let one = document.activeElement;
  while (one && one.shadowRoot && one.shadowRoot.activeElement) one = one.shadowRoot.activeElement;
  if (!one || one === document.body) return "";
  const root = one.getRootNode(), label = root.querySelector && root.querySelector("label");
  return (label || one).textContent.trim() || one.title || one.tagName;
})()"""
VALUE = """[...Bokeh.documents[0]._all_models.values()].find(
  one => one.title === "{0}" || one.label === "{0}")?.value"""
SHOWN = """[...Bokeh.documents[0]._all_models.values()].map(one => one.text)
  .filter(one => /^realization/.test(one)).sort().join()"""
TITLED = """[...Bokeh.documents[0]._all_models.values()].some(
  one => one.text === "Spectra of the fields on the maps")"""
STEPS = {  # what has the focus: the key, its code, what is true afterwards
    "Variable": ("ArrowDown", 40, f"{VALUE.format('Level')} === 'h@850'"),
    "Level": ("ArrowDown", 40, f"{VALUE.format('Level')} === 'h@500'"),
    "Date": ("ArrowDown", 40, f"{VALUE.format('Date')} === '1'"),
    "0": ("ArrowRight", 39, f"{SHOWN} === 'realization 1,realization 2,realization 3'"),
    "Spectra": ("Enter", 13, TITLED),
}
REACHED = ["Variable", "Level", "Date", "0", "anomaly", "Latitude [°N]", "Longitude [°E]", "Area"]
REACHED += ["BUTTON", "Place", "Series", "Area mean", "Spectra"]


@pytest.mark.skipif(browser.found() is None, reason="needs Chromium")
def test_every_control_is_reached_and_moved_by_the_keyboard(address: str, tmp_path: Path) -> None:
    with browser.tab(tmp_path / "profile") as tab:
        tab.open(address)
        tab.wait_for("window.Bokeh && Bokeh.documents.length && document.title")
        reached: list[str] = []
        while len(reached) < 60 and "Spectra" not in reached:
            tab.press("Tab", 9)
            reached.append(str(tab.js(FOCUSED)))
            if reached[-1] in STEPS:
                key, code, true = STEPS[reached[-1]]
                tab.press(key, code)
                tab.wait_for(true, 180)
        assert [one for one in REACHED if one not in reached] == []
        assert reached.count("BUTTON") == 2  # what is taken away: maps, and the place
        assert tab.said == []


def _is_ours(asked: str) -> bool:
    return asked.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:"))
