"""Inputs that would do harm, as `make faults` makes them: what is said of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from storage.sources.inspection import inspect
from storage.sources.source_files import source_digest
from storage.sources.sources import SourceError, UnsafeSource, open_source
from tests.faults import meanings
from tests.faults.inputs import CASES, TWINS
from tests.storage.imitations import row

assert meanings  # registers its cases


def refused(name: str, tmp_path: Path, match: str, code: int = 60, *, child: bool = False) -> None:
    """The case of the hostile corpus is refused with these words, here or by the child process."""
    os.chdir(tmp_path)
    source = CASES[name].make(tmp_path, random.Random(0))
    with pytest.raises(SourceError, match=match) as caught:
        if child:
            inspect(source["paths"], source["variables"]).wait()
        open_source(source.pop("paths"), source.pop("variables"), **source)
    assert caught.value.exit_code == code
    assert isinstance(caught.value, UnsafeSource) is (code == 60)


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@row(
    "harm", "Zarr with a codec that is not on the list, or with objects", "refused by its name: 60"
)
@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "Zarr 2: a pickle as second filter",
            "ta is encoded by the codec 'pickle', which would run",
        ),
        ("Zarr 2 consolidated: a pickle as compressor", "codec 'pickle', which would run code"),
        ("Zarr 2: objects by msgpack2", "codec 'msgpack2', which is not among those"),
        ("Zarr 2: objects by nothing", r"ta holds objects \(\|O\)"),
        ("Zarr 3: an unknown codec", "codec 'magic', which is not among those"),
        ("Zarr 3: a type of objects", "type variable_length_bytes, which is not read"),
        ("kerchunk references with a pickle codec", "codec 'pickle'"),
    ],
)
def test_codecs_are_allowed_by_name(tmp_path, name, match):
    refused(name, tmp_path, match)


@row("harm", "chunks that claim, or become, more than their array has room for", "refused: 10")
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a chunk of Blosc that claims 2 GiB", r"blosc makes 2147483632 of it"),
        ("a chunk of LZ4 that claims 2 GiB", r"lz4 makes 2147483632 of it"),
        ("a chunk of Zstandard that claims 512 MiB", r"zstd makes 536870912 of it"),
        (
            "blocks of Zstandard that repeat one byte a billion times",
            r"zstd makes 1048576000 of it",
        ),
        ("a chunk of gzip that becomes 96 MiB", r"becomes larger than the \d+ bytes"),
        ("a chunk of lzma that becomes 96 MiB", r"becomes larger than the \d+ bytes"),
        ("Zarr 3: a chunk of gzip that becomes 96 MiB", r"becomes larger than the \d+ bytes"),
        ("texts that claim four billion", r"a chunk claims 4294967295 texts"),
        ("Zarr 2: a chunk of 10^9 times", r"a chunk of ta has 128000000000 bytes, more than"),
        ("a zip file of a store that unpacks to gigabytes", r"ta/1\.0\.0 unpacks to 1342177280"),
    ],
)
def test_chunks_are_as_large_as_their_arrays(tmp_path, name, match):
    refused(name, tmp_path, match, 10)


@row("harm", "HDF5 with links into other files, values in them, virtual datasets", "refused: 60")
@row("harm", "HDF5 filters that plugins would load", "refused by number: 60")
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("HDF5 with a link into another file", "/ta_elsewhere is a link into another file"),
        ("HDF5 with values in /etc/passwd", "the values of /ta lie in another file"),
        ("HDF5 with a virtual dataset", "/ta is a virtual dataset of other files"),
        ("HDF5 with a filter of a plugin", "/zfp is packed by the HDF5 filter 32013"),
    ],
)
def test_hdf5_is_kept_in_its_file(tmp_path, name, match):
    refused(name, tmp_path, match, child=True)


@row("harm", "kerchunk references that lead out of their directory", "refused: 60")
@row("harm", "stores with links out of them, pipes or devices within", "refused: 60")
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("kerchunk references to /etc/passwd", "files beside it or below"),
        ("kerchunk references out of their directory", "files beside it or below"),
        ("kerchunk references to the metadata of a cloud", "local files only"),
        ("a store with a link to /etc/passwd", "a link to /etc/passwd, out of the store"),
        ("a store with an array that is a link", "out of the store"),
        ("a store with a pipe", "neither a file nor a directory"),
    ],
)
def test_nothing_leads_out_of_a_store(tmp_path, name, match):
    refused(name, tmp_path, match)


@row("harm", "pipes, sockets and devices in place of files", "refused before they are opened: 60")
@row("harm", "chains of file systems, addresses with a password or a query", "refused: 60")
@row("harm", "paths and names with control characters, names that escape paths", "refused")
@pytest.mark.parametrize(
    ("name", "match", "code"),
    [
        ("a pipe in place of a file", "neither a file nor a directory", 60),
        ("paths: /dev/zero", "neither a file nor a directory", 60),
        ("paths: a chain of file systems", "a chain of file systems", 60),
        ("paths: an address with a password", r"the address at example\.org has a user", 60),
        ("paths: an address with a signature", r"the address at example\.org has a user", 60),
        ("paths: a path with an escape", r"control characters", 60),
        ("variables: '../ta'", "characters that names must not have", 10),
    ],
)
def test_addresses_and_names_are_plain(tmp_path, name, match, code):
    refused(name, tmp_path, match, code)


def test_a_password_is_not_repeated():
    with pytest.raises(UnsafeSource) as caught:
        source_digest("https://me:secret@example.org/a.zarr?sig=hidden")
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


@row("format", "a GRIB file that ends within a message", "refused: eccodes would pass over it")
@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("keep", ["0.2", "0.95", "-1"])
def test_a_cut_message_is_found(tmp_path, edition, keep):
    pytest.importorskip("cfgrib")
    refused(f"GRIB {edition} cut at {keep}", tmp_path, r"message \d+ at byte \d+ should have", 10)


@pytest.mark.parametrize("keep", ["0.2", "0.8", "-1"])
def test_a_cut_cdf5_file_is_found(tmp_path, keep):
    refused(f"CDF-5 cut at {keep}", tmp_path, "its header promises|ends within its header", 10)


@row("value", "a variable that is the same everywhere", "read")
def test_a_constant_is_read(tmp_path):
    made = TWINS["the same value everywhere"].make(tmp_path, random.Random(0))
    fields, _ = open_source(made["paths"], made["variables"])
    assert float(fields.ta.std()) == 0


def test_filters_of_the_environment_are_not_loaded():
    assert "HDF5_PLUGIN_PATH" not in os.environ or "netCDF4" in os.environ["HDF5_PLUGIN_PATH"]
