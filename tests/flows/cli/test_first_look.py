"""What `spherescore init` shows of the fields that it found."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flows.cli.first_look import ROWS, bars, first_look, text_map
from flows.cli.main import main
from flows.config.schema import RunConfig, read_config
from pipeline.sphere.named_grids import grid_coordinates, grid_named


@pytest.mark.parametrize("grid", ["gaussian:16x32", "healpix:16:nested"])
def test_a_map_has_the_north_above_and_the_west_to_the_left(grid: str) -> None:
    where = grid_named(grid)
    latitude, longitude = where.coordinates
    east = np.sin(np.deg2rad(longitude))
    coordinates = grid_coordinates(where)
    north = text_map(xr.Dataset({"z": (where.dims, latitude)}, coordinates), "z")
    assert len(north) == ROWS and set(map(len, north)) == {4 * ROWS}
    assert set(north[0]) == {"█"} and set(north[-1]) == {" "}
    middle = text_map(xr.Dataset({"z": (where.dims, east)}, coordinates), "z")[ROWS // 2]
    assert middle[ROWS] == " " and middle[3 * ROWS] == "█"


def test_bars_go_from_the_smallest_to_the_largest() -> None:
    assert bars(np.array([0.0, 0.5, 1.0])) == "▁▅█"
    assert bars(np.array([2.0, 2.0])) == "▁▁"


def test_a_look_names_every_variable_and_the_costs(table: dict) -> None:
    said = "\n".join(first_look(RunConfig.from_dict(table)))
    assert re.search(r"^z on 2001-02-15:", said)
    assert re.search(r"^z +5760 to 5887 +m +power by degree, 1 to \d+: [▁-█]+$", said, re.M)
    assert re.search(r"A run takes about .*, writes up to .* and needs .* of memory here;", said)


def test_a_look_that_fails_says_so_and_leaves_the_configuration(
    tmp_path: Path, table: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(config: RunConfig) -> list[str]:
        raise OSError("the disk has gone")

    monkeypatch.setattr("flows.cli.first_look.first_look", broken)
    target = tmp_path / "my.toml"
    assert main(["init", table["source"]["paths"][0], "--to", str(target)]) == 0
    assert "A look at the fields failed: the disk has gone" in capsys.readouterr().out
    assert (
        read_config(target).run.root == "runs/my"
    )  # another than that of the next one's TOML file
