"""Shards are Zarr's: what is written here zarr reads, what zarr writes is read here."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from storage.artifacts.reading import StoredArray
from storage.artifacts.sealed import read_json
from storage.artifacts.shards import ShardLayout
from storage.artifacts.units import WaitingArray
from storage.errors import CorruptShard

SHAPE, SHARDS, CHUNKS = (7, 5, 6), (4, 5, 6), (2, 5, 3)
BLOSC = (BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec())
PLAIN = (Crc32cCodec(),)


def made(path, codecs, dtype="float32"):
    array = zarr.create_array(
        path, shape=SHAPE, shards=SHARDS, chunks=CHUNKS, dtype=dtype, compressors=codecs,
        fill_value=np.nan if dtype == "float32" else 3,
    )  # fmt: skip
    return array, ShardLayout.of(read_json(path / "zarr.json"))


def values(dtype="float32"):
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32).astype(dtype)


def stored(path, layout):
    return StoredArray(path, WaitingArray(("a", "b", "c"), SHAPE, SHARDS), layout)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("codecs", [BLOSC, PLAIN])
def test_zarr_reads_our_shards(tmp_path, codecs, dtype):
    array, layout = made(tmp_path / "a", codecs, dtype)
    for index, part in enumerate((slice(0, 4), slice(4, 7))):
        file = tmp_path / "a" / "c" / str(index) / "0" / "0"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"".join(map(bytes, layout.encode(values(dtype)[part]))))
    np.testing.assert_array_equal(array[...], values(dtype))


@pytest.mark.parametrize("codecs", [BLOSC, PLAIN])
@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(None), slice(None)),
        (slice(1, 6), slice(2, 3), slice(2, 5)),
        (slice(5, 1, -2), 3, slice(None, None, 4)),
        (np.array([6, 0, 0, 3]), slice(None), np.array([5, 1])),
        (-1, slice(0, 0), slice(None)),
    ],
)
def test_every_index_gives_what_numpy_gives(tmp_path, codecs, key):
    array, layout = made(tmp_path / "a", codecs)
    array[...] = values()
    expected = values()
    for axis in (2, 1, 0):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(stored(tmp_path / "a", layout)._at(key), expected)


@pytest.mark.parametrize("codecs", [BLOSC, PLAIN])
def test_no_flipped_bit_reads_as_a_number(tmp_path, codecs):
    array, layout = made(tmp_path / "a", codecs)
    array[...] = values()
    file = tmp_path / "a" / "c/0/0/0"
    good = file.read_bytes()
    everything = (slice(0, 4), slice(0, 5), slice(0, 6))
    for position in range(0, len(good), 7):
        file.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(CorruptShard, match="corrupt"):
            layout.read(file, everything, np.empty(SHARDS, np.float32))


def test_what_is_not_there_does_not_read_as_fill_values(tmp_path):
    array, layout = made(tmp_path / "a", BLOSC)
    array[:2] = values()[:2]  # the chunks of the other times are left out
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "a", layout)._at((slice(4, 7), slice(None), slice(None)))
    with pytest.raises(CorruptShard, match="lacks chunk"):
        stored(tmp_path / "a", layout)._at((slice(2, 4), slice(None), slice(None)))


def test_a_chunk_that_claims_another_size_is_not_unpacked(tmp_path):
    array, layout = made(tmp_path / "a", BLOSC)
    array[...] = values()
    smaller = ShardLayout(SHARDS, (2, 5, 3), np.dtype("<f8"), layout.fill, layout.blosc)
    with pytest.raises(CorruptShard, match="claims 120 bytes"):
        smaller.read(tmp_path / "a" / "c/0/0/0", (slice(0, 2),) * 3, np.empty((2, 2, 2)))


def test_other_codecs_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4,), shards=(4,), chunks=(2,), dtype="f4")
    with pytest.raises(ValueError, match="zstd"):
        ShardLayout.of(read_json(tmp_path / "a" / "zarr.json"))
