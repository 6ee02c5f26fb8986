"""The page of `spherescore view`: maps side by side, and what they say of a place and of an area.

Every choice is a labelled control that the keyboard reaches; a click on a map sets the same two
numbers as the fields of latitude and longitude.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import xarray as xr
from bokeh.events import Tap

import pipeline.fields.accessor  # noqa: F401  registers dataset.spherescore
from flows.report.figures import name_of, palette, scale, symmetric, units_of
from flows.report.maps import Raster, project, unproject
from flows.view import figures
from flows.view.opened import Opened, by_level, dated
from pipeline.arrays import FloatArray
from pipeline.fields.places import Area, area_mean, cell_at
from pipeline.scores.return_levels import return_levels
from pipeline.sphere.named_grids import grid_of

BESIDE = 3  # fields in a row
WIDTH, CONTROL = 300, 262  # pixels of a map, and of a control
FULL, ANOMALY = "full field", "anomaly"
AREAS = {
    "globe": Area(),
    "tropics, 23.5° S to 23.5° N": Area(south=-23.5, north=23.5),
    "north of 30° N": Area(south=30.0),
    "south of 30° S": Area(north=-30.0),
}
AROUND = "10° around the place"
PERIODS = np.array([2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000.0])


class Page:
    """The controls and figures of one visitor."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._controls()
        self.mapper = figures.colour_mapper()
        self.rasters = {
            "drawn": Raster(next(iter(opened.drawn.values())), WIDTH),
            **({} if opened.real is None else {"real": Raster(opened.real, WIDTH)}),
        }
        extent = self.rasters["drawn"].extent
        rows = 1 if opened.real is None else 2
        self.maps = [figures.MapFigure(self.mapper, extent, WIDTH) for _ in range(rows * BESIDE)]
        self.bar = figures.colour_bar(self.mapper)
        self.about = pn.pane.Markdown("", margin=(0, 10))
        self.below = pn.widgets.RadioButtonGroup(  # Bokeh's tabs do not hear the keyboard
            label="Below the maps", options=list(BELOW), color="primary", variant="outline"
        )
        self.pictures = pn.Row()
        for one in self.maps:
            one.figure.on_event(Tap, self._tapped)
        self.variable.param.watch(self._variable_changed, "value")
        for control in (self.level, self.kind, self.date, self.day, self.first, self.mode):
            control.param.watch(self._fields_changed, "value")
        for control in (self.latitude, self.longitude, self.area, self.below):
            control.param.watch(self._place_changed, "value")
        self._fields_changed()

    def _controls(self) -> None:
        opened = self.opened
        first = next(iter(opened.drawn.values()))
        self.levels = by_level(opened.variables)
        named = {_titled(base, first[next(iter(own.values()))]): base
                 for base, own in self.levels.items()}  # fmt: skip
        self.variable = pn.widgets.Select(label="Variable", options=named, width=CONTROL)
        self.level = pn.widgets.Select(label="Level", width=CONTROL)
        self._variable_changed()
        self.kind = pn.widgets.RadioButtonGroup(
            label="What was drawn", options=list(opened.drawn), color="primary",
            variant="outline", visible=len(opened.drawn) > 1,
        )  # fmt: skip
        dates = opened.times("dates") if "dates" in opened.drawn else [""]
        self.date = pn.widgets.Select(
            label="Date", options={d: i for i, d in enumerate(dates)}, width=CONTROL
        )
        days = opened.drawn["sequences"].sizes["time"] if "sequences" in opened.drawn else 1
        self.day = pn.widgets.Player(
            label="Day of the sequence", start=0, end=days - 1, value=0, interval=700,
            visible_buttons=["previous", "reverse", "pause", "play", "next"],
            loop_policy="loop", width=CONTROL, show_loop_controls=False,
        )  # fmt: skip
        most = max(opened.realizations(kind) for kind in opened.drawn)
        self.first = pn.widgets.IntSlider(
            label="First realization", start=0, end=max(1, most - BESIDE), value=0, width=CONTROL
        )
        self.mode = pn.widgets.RadioButtonGroup(
            label="Shown as", options=[FULL] + [ANOMALY] * (opened.real is not None)
        )
        self.latitude = pn.widgets.FloatInput(
            label="Latitude [°N]", value=45.6, start=-90, end=90, step=5, width=120
        )
        self.longitude = pn.widgets.FloatInput(
            label="Longitude [°E]", value=13.8, start=-180, end=360, step=5, width=120
        )
        self.area = pn.widgets.Select(label="Area", options=[*AREAS, AROUND], width=CONTROL)
        self.download = pn.widgets.FileDownload(
            callback=self.shown_as_netcdf,
            filename="shown.nc",
            label="Maps as NetCDF",
            width=CONTROL,
        )  # fmt: skip
        self.sample_download = pn.widgets.FileDownload(
            callback=self.place_as_csv, filename="place.csv", label="Place as CSV", width=CONTROL
        )

    @property
    def time(self) -> int:
        """Index of the date that is shown."""
        return int(self.day.value if self.kind.value == "sequences" else self.date.value)

    @property
    def name(self) -> str:
        return str(self.level.value)

    def shown(self) -> list[tuple[str, xr.DataArray]]:
        """The fields on the maps, as `drawn` or `real`."""
        opened, kind = self.opened, str(self.kind.value)
        count = opened.realizations(kind)
        first = min(int(self.first.value), max(0, count - BESIDE))
        numbers = range(first, min(count, first + BESIDE))
        drawn = [("drawn", opened.field(kind, self.name, n, self.time)) for n in numbers]
        days = opened.real_days(kind, self.time, BESIDE)
        if opened.real is None or self.name not in opened.real:
            return drawn
        return [*drawn, *(("real", opened.real_field(self.name, int(day))) for day in days)]

    def samples(self, reduce: Any) -> dict[str, FloatArray]:
        """Numbers of the date's draws, and of real days of its season, in units for people.

        Args:
            reduce: From a dataset (draw, ...) to (draw,).
        """
        kind = str(self.kind.value)
        found = {"generated": self.opened.sample(kind, self.name, self.time)}
        season = self.opened.season(kind, self.name, self.time)
        if season is not None and season.sizes["draw"]:
            found["real"] = season
        factor = self._units()[0]
        numbers: dict[str, FloatArray] = {
            who: factor * np.asarray(reduce(one), float) for who, one in found.items()
        }
        if self.mode.value == ANOMALY and "real" in numbers:
            middle = np.nanmean(numbers["real"])
            numbers = {who: one - middle for who, one in numbers.items()}
        return numbers

    def at_place(self, dataset: xr.Dataset) -> FloatArray:
        cell = cell_at(grid_of(dataset), self.latitude.value, self.longitude.value)
        return dataset[self.name].isel(cell).to_numpy()

    def over_area(self, dataset: xr.Dataset) -> FloatArray:
        area = AREAS.get(str(self.area.value)) or self._around()
        return area_mean(dataset, self.name, area).to_numpy()

    def shown_as_netcdf(self) -> io.BytesIO:
        """The maps, in the units of the store."""
        parts = {"drawn": "realization", "real": "real_day"}
        several = {who: [one for kind, one in self.shown() if kind == who] for who in parts}
        made = xr.Dataset()
        for who, dim in parts.items():
            if several[who]:
                together = xr.concat(
                    [one.drop_vars("time") for one in several[who]], dim, coords="minimal",
                    compat="override", join="override",
                )  # fmt: skip
                grid = dict.fromkeys(str(d) for d in together.dims if d != dim)
                if who == "real":
                    days = [dated(one["time"]) for one in several[who]]
                    together = together.drop_vars(grid, errors="ignore").assign_coords({dim: days})
                    together = together.rename({d: f"real_{d}" for d in grid})
                made[f"{self.name}_{who}"] = together
        made.attrs = {"title": f"{self.name}, {self.about.object}", "root": self.opened.root}
        stream = io.BytesIO()
        stream.write(bytes(made.to_netcdf(engine="h5netcdf")))
        stream.seek(0)
        return stream

    def place_as_csv(self) -> io.StringIO:
        """The numbers of the distribution, one a line."""
        unit = self._units()[1]
        rows = [f"source,{self.name} [{unit}]"]
        for who, numbers in self.samples(self.at_place).items():
            rows += [f"{who},{number:.6g}" for number in numbers]
        return io.StringIO("\n".join(rows) + "\n")

    def layout(self) -> pn.Row:
        controls = pn.Column(
            pn.pane.Markdown("## spherescore", margin=(0, 10)),
            self.variable, self.level, self.kind, self.date, self.day, self.first, self.mode,
            pn.Row(self.latitude, self.longitude), self.area,
            self.download, self.sample_download,
            width=290, styles={"background": "#f4f6f8"},
        )  # fmt: skip
        plots = [one.figure for one in self.maps]
        grid = pn.GridBox(*(pn.pane.Bokeh(one) for one in plots), ncols=BESIDE)
        bar = pn.pane.Bokeh(self.bar)
        return pn.Row(controls, pn.Column(self.about, grid, bar, self.below, self.pictures))

    def _variable_changed(self, *_: Any) -> None:
        """Offer the levels of the variable, and stay on the one that is shown if it has it."""
        own = self.levels[str(self.variable.value)]
        level = str(self.level.value or "").partition("@")[2]
        value = own.get(level, next(iter(own.values())))
        self.level.param.update(options=own, value=value, visible=list(own) != [""])

    def _fields_changed(self, *_: Any) -> None:
        with pn.io.hold():  # the browser gets all maps at once, with their colours
            self._show_fields()

    def _show_fields(self) -> None:
        sequences = self.kind.value == "sequences"
        self.date.visible, self.day.visible = not sequences, sequences
        shown = self.shown()
        factor, unit = self._units()
        pixels = [factor * self.rasters[who](one) for who, one in shown]
        anomaly = self.mode.value == ANOMALY
        if anomaly:
            pixels = [one - self._mean_pixels() * factor for one in pixels]
        field, stacked = shown[0][1], np.stack(pixels)
        norm = symmetric(stacked) if anomaly else scale(field, stacked)
        figures.recolour(self.mapper, norm, "PuOr_r" if anomaly else palette(field))
        titles = [
            f"realization {int(one['realization'])}" if who == "drawn"
            else f"real, {dated(one['time'])}"
            for who, one in shown
        ]  # fmt: skip
        for figure, image, title in zip(self.maps, pixels, titles, strict=False):
            figure.show(image, title)
        what = f"{name_of(field)}{f' [{unit}]' if unit else ''}"
        date = self.opened.times(str(self.kind.value))[self.time]
        words = "anomaly from the mean of real days of the season" if anomaly else "full field"
        self.about.object = f"**{what}**, {date}: generated above, real below; {words}"
        self._place_changed()

    def _mean_pixels(self) -> FloatArray:
        season = self.opened.season(str(self.kind.value), self.name, self.time)
        assert season is not None
        return self.rasters["real"](season[self.name].mean("draw"))

    def _tapped(self, event: Any) -> None:
        longitude, latitude = (float(part) for part in unproject(event.x, event.y))
        if abs(longitude) <= 180:
            self.latitude.value, self.longitude.value = round(latitude, 1), round(longitude, 1)

    def _place_changed(self, *_: Any) -> None:
        lon = (self.longitude.value + 180.0) % 360.0 - 180.0
        x, y = project(np.array([lon]), np.array([self.latitude.value]))
        for one in self.maps:
            one.place.data = {"x": x, "y": y}
        made = BELOW[str(self.below.value)](self)
        self.pictures.objects = [pn.pane.Bokeh(one) for one in made]

    def _place(self) -> list[Any]:
        samples, words = self.samples(self.at_place), self._words()
        found = {who: return_levels(one, PERIODS) for who, one in samples.items()}
        return [figures.densities(samples, words), figures.levels(found, words)]

    def _series(self) -> list[Any]:
        """Around the date, by the day of the year: each real year, and what was drawn."""
        opened, kind, (factor, _) = self.opened, str(self.kind.value), self._units()
        drawn, real = opened.drawn[kind], []
        here = drawn[self.name].isel(cell_at(grid_of(drawn), *self._at))
        here = here.isel(realization=slice(0, 6 if kind == "sequences" else 30))
        here = here if kind == "sequences" else here.isel(time=[self.time])
        days = here["time"].dt.dayofyear.to_numpy()
        several = [(days, factor * one) for one in here.to_numpy()]
        season = opened.season(kind, self.name, self.time)
        if season is not None:
            values = factor * self.at_place(season)
            for year in np.unique(season["draw"].dt.year):
                own = season["draw"].dt.year.to_numpy() == year
                real.append((season["draw"].dt.dayofyear.to_numpy()[own], values[own]))
        return [figures.lines(several, real, "day of the year", self._words(), "At the place")]

    def _area(self) -> list[Any]:
        samples, words = self.samples(self.over_area), f"mean of {self._words()}"
        found = {who: return_levels(one, PERIODS) for who, one in samples.items()}
        return [figures.densities(samples, words), figures.levels(found, words)]

    def _spectra(self) -> list[Any]:
        kind, found = str(self.kind.value), dict[str, list[Any]](drawn=[], real=[])
        parents = {"drawn": self.opened.drawn[kind], "real": self.opened.real}
        for who, one in self.shown():
            parent = parents[who]
            assert parent is not None
            alone = parent[[self.name]].isel(dict.fromkeys(set(parent[self.name].dims) & {
                "realization", "time"}, 0)).copy()  # fmt: skip
            alone[self.name] = one.drop_vars(["realization", "time"], errors="ignore")
            power = alone.spherescore.spectrum(self.name)
            found[who].append((power["degree"].to_numpy()[1:], power.to_numpy()[1:]))
        square = f"power per degree [({self.opened.drawn[kind][self.name].attrs.get('units')})²]"
        title = "Spectra of the fields on the maps"
        return [
            figures.lines(
                found["drawn"], found["real"], "degree", square, title, x_axis_type="log",
                y_axis_type="log",
            )
        ]  # fmt: skip

    @property
    def _at(self) -> tuple[float, float]:
        return float(self.latitude.value), float(self.longitude.value)

    def _around(self) -> Area:
        latitude, longitude = self._at
        south, north = max(-90.0, latitude - 10), min(90.0, latitude + 10)
        return Area(south=south, north=north, west=longitude - 10, east=longitude + 10)

    def _units(self) -> tuple[float, str]:
        return units_of(self.opened.drawn[str(self.kind.value)][self.name])

    def _words(self) -> str:
        unit = self._units()[1]
        change = "anomaly of " if self.mode.value == ANOMALY else ""
        return f"{change}{self.name}{f' [{unit}]' if unit else ''}"


BELOW: dict[str, Callable[[Page], list[Any]]] = {
    "Place": Page._place,
    "Series": Page._series,
    "Area mean": Page._area,
    "Spectra": Page._spectra,
}


def _titled(name: str, field: xr.DataArray) -> str:
    """What a variable is called, and its long name if that says more."""
    return name if name_of(field) in (name, field.name) else f"{name}: {name_of(field)}"
