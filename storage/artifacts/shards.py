"""Shards as Zarr defines them (sharding codec, index at the end), written and read at one go.

zarr hands every chunk to a thread and copies it several times. Here it goes from the array to the
file and back with no copy but the codec's. Layout and codecs are those of the array's metadata, and
zarr reads what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc  # type: ignore[import-untyped]

from storage.artifacts.overlaps import Slices, overlaps
from storage.errors import CorruptShard
from storage.places.places import Place, opened

__all__ = ["CorruptShard", "ShardLayout"]

# With threads, Blosc stores blocks in the order in which they were ready: not the same bytes twice.
blosc.use_threads = False

Array = npt.NDArray[Any]

_CHECKSUM = 4  # bytes
_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True)
class ShardLayout:
    """How an array lies in its shards.

    Attributes:
        shard, chunk: shapes; a shard holds whole chunks.
        blosc: name, level, shuffle and block size; None if values are stored as they are.
    """

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    blosc: tuple[bytes, int, int, int] | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> ShardLayout:
        """Read the shards of an array from the zarr.json that `templates.create` made.

        Raises:
            ValueError: If it has other codecs than those.
        """
        (sharding,) = metadata["codecs"]
        inside = {codec["name"]: codec.get("configuration", {}) for codec in _inner(sharding)}
        if [*inside] not in (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"]):
            raise ValueError(f"shards are not written with the codecs {[*inside]}")
        packed = inside.get("blosc")
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        fill = metadata["fill_value"]
        return cls(
            shard=tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
            chunk=tuple(sharding["configuration"]["chunk_shape"]),
            dtype=dtype,
            fill=dtype.type(float(fill) if isinstance(fill, str) else fill),
            blosc=packed
            and (
                packed["cname"].encode(),
                packed["clevel"],
                _SHUFFLE[packed["shuffle"]],
                packed["blocksize"],
            ),
        )

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of a shard along each dimension."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def _bytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize

    def encode(self, block: Array) -> Iterator[Any]:
        """The bytes of one shard, part by part.

        Args:
            block: the values, in the array's type; smaller than a shard at the array's ends.
        """
        index = np.full((*self.chunks, 2), np.iinfo(np.uint64).max, "<u8")
        offset = 0
        for place in np.ndindex(*self.chunks):
            part = block[self._slices(place)]
            if part.size:
                data = self._encoded(part)
                index[place] = offset, len(data) + _CHECKSUM
                offset += len(data) + _CHECKSUM
                yield data
                yield _checksum(data)
        data = index.reshape(-1).view(np.uint8)
        yield data
        yield _checksum(data)

    def read(self, file: Place, selection: Slices, out: Array) -> None:
        """Fill `out` with a part of a shard, reading only the chunks that it touches.

        Raises:
            FileNotFoundError: If there is no such shard; it never reads as fill values.
            CorruptShard: If a checksum does not match.
        """
        with opened(file) as stream:
            size = 16 * math.prod(self.chunks)
            end, file_size = stream.end(size + _CHECKSUM)
            index = _checked(end, file).view("<u8").reshape(*self.chunks, 2)
            chunks = list(overlaps(selection, self.chunk))
            places = [chunk.place for chunk in chunks]
            for place in places:
                if index[place][0] > file_size:
                    raise CorruptShard(f"{file} lacks chunk {place}, which every unit writes")
            starts, lengths = ([int(index[place][side]) for place in places] for side in (0, 1))
            for chunk, content in zip(chunks, stream.parts(starts, lengths), strict=True):
                data = _checked(content, file)
                if self.blosc is not None and _unpacked(data) != self._bytes:
                    raise CorruptShard(
                        f"{file}: chunk {chunk.place} claims {_unpacked(data)} bytes, a chunk has "
                        f"{self._bytes}"
                    )
                self._decode(data, chunk.inside, out[chunk.target])

    def _encoded(self, part: Array) -> Any:
        if part.shape != self.chunk:
            whole = np.full(self.chunk, self.fill, self.dtype)
            whole[tuple(slice(n) for n in part.shape)] = part
            part = whole
        values = np.ascontiguousarray(part, self.dtype).reshape(-1)
        if self.blosc is None:
            return values.view(np.uint8)
        name, level, shuffle, size = self.blosc
        return blosc.compress(values, name, level, shuffle, size)

    def _decode(self, data: Array, inside: Slices, target: Array) -> None:
        whole = all(part == slice(0, n) for part, n in zip(inside, self.chunk, strict=True))
        if self.blosc is not None and whole and target.flags.c_contiguous:
            blosc.decompress(data, target.reshape(-1))
            return
        values = data if self.blosc is None else np.frombuffer(blosc.decompress(data), np.uint8)
        target[...] = values.view(self.dtype).reshape(self.chunk)[inside]

    def _slices(self, place: Sequence[int]) -> Slices:
        return tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, self.chunk, strict=True))


def _inner(sharding: Mapping[str, Any]) -> list[dict[str, Any]]:
    configuration = sharding.get("configuration", {})
    if sharding["name"] != "sharding_indexed" or configuration["index_location"] != "end":
        raise ValueError(f"an array of units is sharded, index at the end; got {sharding}")
    codecs: list[dict[str, Any]] = configuration["codecs"]
    return codecs


def _unpacked(data: Array) -> int:
    """The size that Blosc's header states."""
    return int.from_bytes(data[4:8].tobytes(), "little")


def _checksum(data: Any) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CHECKSUM, "little")


def _checked(data: bytes, file: Place) -> Array:
    """The bytes before their checksum."""
    values = np.frombuffer(data, np.uint8)
    if len(values) < _CHECKSUM or _checksum(values[:-_CHECKSUM]) != data[-_CHECKSUM:]:
        raise CorruptShard(
            f"{file} is corrupt: a checksum (crc32c) does not match; move the artifact away and "
            "run the stage again"
        )
    return values[:-_CHECKSUM]
