"""GRIB messages that stand for one field: none is lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from storage.sources.candidates import contents
from storage.sources.sources import open_source
from tests.storage.imitations import refused, row, values
from tests.storage.sources.test_formats import DATES, NLAT, NLON, message

pytest.importorskip("cfgrib")


def grib(tmp_path: Path, write: Callable[[BinaryIO], None], name: str = "a.grib") -> str:
    with (tmp_path / name).open("wb") as file:
        write(file)
    return str(tmp_path / name)


def drawn(seed: int) -> np.ndarray:
    return values(NLAT, NLON, seed=seed) - 80


@row(
    "format",
    "GRIB accumulations that end at one time (0-6 and 3-6 h), or other messages that cfgrib takes "
    "for one",
    'refused with what tells them apart; `[source] grib = { stepRange = "0-6" }` chooses',
)
def test_accumulations_that_end_together_are_not_lost(tmp_path):
    def write(file: BinaryIO) -> None:
        for date in DATES:
            message(file, "tp", date, stepRange="0-6", seed=date)
            message(file, "tp", date, stepRange="3-6", seed=date + 1000)
            message(file, "2t", date)

    path = grib(tmp_path, write)
    said = refused(
        r"3 messages of tp have the time, step and level of another one, and other values: of "
        r"20000101 1200 stepRange is 0-6 and 3-6; say which are meant: "
        r'.source. grib = \{ stepRange = "0-6" \}',
        path,
        ["tp"],
    )
    assert "a.grib" in said
    assert open_source(path, ["t2m"])[0].sizes["time"] == 3, "other variables are not concerned"
    for interval, shift in (("0-6", 0), ("3-6", 1000)):
        fields, _ = open_source(path, ["tp"], grib={"stepRange": interval})
        np.testing.assert_allclose(fields.tp[2], drawn(DATES[2] + shift), atol=0.01)
    refused("no message of tp has stepRange = '0-9'", path, ["tp"], grib={"stepRange": "0-9"})
    fields, _ = open_source(path, ["t2m"], grib={"stepRange": "3-6"})
    assert fields.sizes["time"] == 3, "the key chooses among messages that clash, not among all"
    (tp,) = (one for one in contents([path]) if one.name == "tp")
    assert "stepRange" in tp.refused


@row(
    "format",
    "GRIB parameters that eccodes has no name for",
    "refused where two of them are in a file; `grib = { parameterNumber = 200 }` chooses",
)
def test_two_unknown_parameters_are_told_apart(tmp_path):
    def write(file: BinaryIO) -> None:
        for date in DATES:
            for number in (200, 201):
                keys: dict[str, Any] = {"parameterCategory": 200, "parameterNumber": number}
                message(file, "", date, seed=date + number, **keys)

    path = grib(tmp_path, write)
    refused("parameterNumber is 200 and 201; say which are meant", path, ["unknown"])
    fields, _ = open_source(
        path, ["unknown"], grib={"parameterNumber": 201}, units={"unknown": "K"}
    )
    np.testing.assert_allclose(fields.unknown[1], drawn(DATES[1] + 201), atol=0.01)


@row(
    "format",
    "a GRIB message that is stored twice",
    "dropped, noted if the values are the same, else refused",
)
def test_a_field_that_is_stored_twice(tmp_path):
    def write(second: int) -> Callable[[BinaryIO], None]:
        def written(file: BinaryIO) -> None:
            for date in DATES:
                message(file, "t", date, 500)
            message(file, "t", DATES[1], 500, seed=second)

        return written

    same = grib(tmp_path, write(DATES[1] + 500))
    fields, report = open_source(same, ["t"])
    assert fields.sizes["time"] == 3
    assert "t: 1 messages that are stored twice, dropped" in report.notes
    other = grib(tmp_path, write(7), "b.grib")
    refused(
        "1 messages of t .* of 20000102 1200 there are 2 that differ in nothing else", other, ["t"]
    )


def test_final_and_preliminary_messages_are_told_apart(tmp_path):
    """ERA5 and ERA5T, beside each other."""

    def write(file: BinaryIO) -> None:
        for date in DATES:
            for version in ("0001", "0005"):
                message(
                    file, "2t", date, seed=date + int(version), sample="regular_ll_sfc_grib1",
                    localDefinitionNumber=1, experimentVersionNumber=version,
                )  # fmt: skip

    path = grib(tmp_path, write)
    refused('grib = \\{ experimentVersionNumber = "0001" \\}', path, ["t2m"])
    fields, _ = open_source(path, ["t2m"], grib={"experimentVersionNumber": "0005"})
    np.testing.assert_allclose(fields.t2m[0], drawn(DATES[0] + 5), atol=0.01)
