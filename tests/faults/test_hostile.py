"""Some of the hostile inputs of `make faults`, and that the lane finds what is wrong."""

from __future__ import annotations

import pytest

from tests.faults import hostile
from tests.faults.inputs import ANY, CASES, TWINS, Case

SOME = (
    "NetCDF3 cut at 0.8",
    "CDF-5 cut at 0.95",
    "NetCDF4 packed cut at 0.5",
    "NetCDF4 packed flipped 3",
    "GRIB 2 cut at 0.8",
    "Zarr 2, chunk cut at 0.5",
    "Zarr 3 consolidated, root cut at -1",
    "a chunk of zlib that becomes 96 MiB",
    "a chunk of Blosc that claims 2 GiB",
    "a chunk of Zstandard that claims 512 MiB",
    "Zarr 3: a chunk of gzip that becomes 96 MiB",
    "HDF5: a chunk of deflate that becomes gigabytes",
    "NetCDF3: sizes of 2^31 each",
    "Zarr 2: a shape of 10^15 times",
    "Zarr 2: a pickle as second filter",
    "Zarr 3: an unknown codec",
    "kerchunk references to /etc/passwd",
    "a store with a link to /etc/passwd",
    "HDF5 with values in /etc/passwd",
    "HDF5 with a link into another file",
    "paths: an address with a password",
    "a pipe in place of a file",
    "an undeclared 9.97e36",
    "a region",
    "a series that has a word among its values",
    "a configuration that is a hundred thousand brackets",
    "a configuration that has an escape in a path",
)
BENIGN = (
    "NetCDF3",
    "NetCDF4 packed",
    "GRIB 2",
    "Zarr 2 packed by zlib",
    "Zarr 3 in shards",
    "kerchunk references",
    "a store with a link within it",
    "a series",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    results = hostile.run([*SOME, *BENIGN], tmp_path_factory.mktemp("hostile"))
    return {str(one["name"]): one for one in results}


@pytest.mark.parametrize("name", [*SOME, *BENIGN])
def test_an_input_ends_as_it_is_documented(found, name):
    assert found[name]["bad"] == []


def test_there_are_as_many_inputs_as_are_promised():
    assert len(CASES) >= 200
    assert len(TWINS) >= 30
    assert sum(one.codes != ANY for one in CASES.values()) >= 200


def test_the_lane_finds_a_wrong_code_and_what_is_said_twice(tmp_path):
    case = Case("wrong", lambda d, r: {}, frozenset({10}))
    seen = {"code": 2, "memory": [1 << 30, 0], "seconds": 9.0, "sockets": 1, "said": "x"}
    said = "spherescore: a\nTraceback\nspherescore: b (unexpected; --debug shows it)\n\x1b[2J"
    bad = " ".join(hostile._judge(case, seen, -11, said, tmp_path))
    for sign in (
        "status -11",
        "exit code 2",
        "2 lines",
        "foresaw",
        "control",
        "9.0 s",
        "1 sockets",
    ):
        assert sign in bad
    assert "1024 MiB" in bad
