"""What may decode the chunks of a foreign Zarr store, and how large they may become.

A store says itself by which codecs it is read. Those below only move numbers; one that runs code
(pickle), makes objects, or is not known is refused by name. A chunk that would decode to more than
its array says is refused before it is decoded: 16 KB of Blosc may claim 2 GB.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from math import prod
from typing import Any

import numpy as np
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.codecs._v2 import V2Codec
from zarr.codecs.numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd
from zarr.codecs.vlen_utf8 import VLenUTF8Codec

from storage.conventions.axes import SourceError, UnsafeSource

__all__ = ["ALLOWED", "LARGEST_CHUNK", "LARGEST_DOCUMENT", "ChunkTooLarge", "examine_documents"]

LARGEST_CHUNK = 1 << 30  # decoded, in bytes
LARGEST_DOCUMENT = 64 << 20

_COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
_CHECKSUMS = ("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3")
_FILTERS = ("delta", "fixedscaleoffset", "shuffle", "bitround", "quantize", "astype", "packbits")
_TEXT = ("vlen-utf8",)  # labels of members
ALLOWED = frozenset(
    (
        *(*_COMPRESSORS, *_CHECKSUMS, *_FILTERS, *_TEXT),
        *("bytes", "endian", "transpose", "sharding_indexed", "scale_offset", "cast_value"),
        *(f"numcodecs.{name}" for name in (*_COMPRESSORS, *_CHECKSUMS, *_FILTERS)),
    )
)

_SLACK = 1 << 16
_ZSTD_MAGIC, _ZSTD_BLOCK = 0xFD2FB528, 1 << 17
_ZSTD_UNSAID = 64 << 20  # a frame that does not say its size may have this, at most


class ChunkTooLarge(ValueError):
    """A chunk says that it decodes to more than its array has room for."""


def examine_documents(documents: Iterator[tuple[str, bytes]], where: str) -> None:
    """Look through the metadata of a store, as JSON by their places in it.

    Raises:
        UnsafeSource: If an array needs a codec or a type that is not allowed.
        SourceError: If a document is not what it should be, or a chunk is too large.
    """
    for place, text in documents:
        try:
            if len(text) > LARGEST_DOCUMENT:
                raise ValueError(f"it has {len(text)} bytes")
            _examine(json.loads(text), place, where)
        except SourceError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SourceError(
                f"{where}: {place} is no metadata of Zarr, truncated or corrupt? "
                f"({type(error).__name__}: {error})"
            ) from error


def _examine(document: Any, place: str, where: str) -> None:
    if place.endswith(".zmetadata"):
        parts = document["metadata"]
    elif place.endswith("zarr.json") and document.get("node_type") == "group":
        parts = (document.get("consolidated_metadata") or {}).get("metadata", {})
        parts = {f"{name}/zarr.json": part for name, part in parts.items()}
    else:
        parts = {place: document}
    for name, part in parts.items():
        if name.endswith(".zarray"):
            _examine_v2(part, name.removesuffix("/.zarray"), where)
        elif name.endswith("zarr.json") and part.get("node_type") == "array":
            _examine_v3(part, name.removesuffix("/zarr.json"), where)


def _examine_v2(array: Mapping[str, Any], name: str, where: str) -> None:
    named = [array.get("compressor"), *(array.get("filters") or ())]
    codecs = [str(codec["id"]) for codec in named if codec is not None]
    _require_allowed(codecs, name, where)
    dtype = array["dtype"]
    if not isinstance(dtype, str) or (dtype.endswith("O") and "vlen-utf8" not in codecs):
        raise UnsafeSource(
            f"{where}: {name} holds objects ({dtype}), which only code could read; write numbers"
        )
    size = 8 if dtype.endswith("O") else np.dtype(dtype).itemsize
    _require_small(array["chunks"], size, name, where)
    _sizes(array["shape"])


def _examine_v3(array: Mapping[str, Any], name: str, where: str) -> None:
    kind = array["data_type"]
    text = str(kind["name"] if isinstance(kind, Mapping) else kind)
    if text in ("variable_length_bytes", "bytes", "struct", "structured") or "vlen" in text:
        raise UnsafeSource(f"{where}: {name} has the type {text}, which is not read; write numbers")
    chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
    for codec in _flattened(array["codecs"]):
        _require_allowed([str(codec if isinstance(codec, str) else codec["name"])], name, where)
        inner = {} if isinstance(codec, str) else codec.get("configuration") or {}
        chunk = inner.get("chunk_shape", chunk)
    digits = "".join(letter for letter in text if letter.isdigit())
    _require_small(chunk, max(1, int(digits or 64) // 8), name, where)
    _sizes(array["shape"])


def _flattened(codecs: Sequence[Any], depth: int = 0) -> Iterator[Any]:
    if depth > 4:
        raise ValueError("codecs within codecs within codecs")
    for codec in codecs:
        yield codec
        inner = {} if isinstance(codec, str) else codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _flattened(inner.get(key) or (), depth + 1)


def _require_allowed(codecs: Sequence[str], name: str, where: str) -> None:
    for codec in codecs:
        if codec not in ALLOWED:
            why = "would run code" if "pickle" in codec else "is not among those that are read"
            raise UnsafeSource(
                f"{where}: {name} is encoded by the codec {codec!r}, which {why}; write it anew, "
                "e.g. with xr.open_zarr(...).to_zarr(...) on a machine that you trust it on"
            )


def _require_small(chunk: Any, itemsize: int, name: str, where: str) -> None:
    size = prod(_sizes(chunk)) * itemsize
    if size > LARGEST_CHUNK:
        raise SourceError(
            f"{where}: a chunk of {name} has {size} bytes, more than the {LARGEST_CHUNK} that are "
            "read at once; write it in smaller chunks"
        )


def _sizes(shape: Any) -> list[int]:
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise ValueError(f"sizes {str(shape)[:80]}")
    return list(shape)


def require_size(codec: str, data: bytes | memoryview, limit: int) -> None:
    """Refuse what its own header says is larger than `limit`, or longer than it is.

    Raises:
        ChunkTooLarge: For Blosc, LZ4 and Zstandard; other codecs have no such header.
    """
    claimed = {"blosc": _blosc_size, "lz4": _lz4_size, "zstd": _zstd_size}.get(codec)
    size = claimed(data) if claimed else 0
    if size > (max(limit, _ZSTD_UNSAID) if codec == "zstd" else limit):
        raise ChunkTooLarge(
            f"a chunk of {len(data)} bytes says that {codec} makes {size} of it, the array has "
            f"room for {limit}"
        )


def bounded(codec: str, data: bytes | memoryview, limit: int) -> bytes | None:
    """Decode a stream without size up to `limit`; None for codecs that are no such stream."""
    opened: Any = {
        "zlib": lambda: zlib.decompressobj(),
        "gzip": lambda: zlib.decompressobj(31),
        "bz2": bz2.BZ2Decompressor,
        "lzma": lambda: lzma.LZMADecompressor(memlimit=256 << 20),
    }.get(codec)
    if opened is None:
        return None
    found, rest = b"", data
    while len(rest):
        stream: Any = opened()
        found += stream.decompress(rest, limit + 1 - len(found))
        if len(found) > limit:
            raise ChunkTooLarge(
                f"a chunk of {len(data)} bytes becomes larger than the {limit} bytes that the "
                f"array has room for ({codec})"
            )
        if not stream.eof:
            raise ValueError(f"a chunk of {len(data)} bytes ends too early ({codec})")
        rest = stream.unused_data
    return found


def _blosc_size(data: bytes | memoryview) -> int:
    if len(data) < 16 or int.from_bytes(data[12:16], "little") > len(data):
        raise ChunkTooLarge(f"a chunk of {len(data)} bytes is shorter than its header says (blosc)")
    return int.from_bytes(data[4:8], "little")


def _lz4_size(data: bytes | memoryview) -> int:
    return int.from_bytes(data[:4], "little")


def _zstd_size(data: bytes | memoryview) -> int:
    """What all frames say of their sizes, or at most become by the headers of their blocks."""
    size, at = 0, 0
    while at + 5 <= len(data):
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # skippable
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD_MAGIC:
            break
        head, at = data[at + 4], at + 5
        single, flag = bool(head & 0x20), head >> 6
        at += (not single) + (0, 1, 2, 4)[head & 3]
        field = (1 if single else 0, 2, 4, 8)[flag]
        said = int.from_bytes(data[at : at + field], "little") + (256 if field == 2 else 0)
        at += field
        most, last = 0, False
        while not last and at + 3 <= len(data):
            block = int.from_bytes(data[at : at + 3], "little")
            last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
            most += length if kind < 2 else _ZSTD_BLOCK
            at += 3 + (1 if kind == 1 else length)
        at += 4 * bool(head & 4)
        size += said if field else most
    return size


def _room(spec: Any) -> int:
    """Bytes that a chunk may have between two codecs: filters may widen its numbers."""
    itemsize = getattr(spec.dtype, "item_size", 8)
    return int(prod(spec.shape)) * max(8, int(itemsize)) + _SLACK


class _Bounded:
    """A compressor of Zarr 2 that knows how large its chunk may be."""

    def __init__(self, codec: Any, limit: int) -> None:
        self.codec, self.limit = codec, limit

    def decode(self, data: Any) -> Any:
        name = self.codec.codec_id
        flat: Any = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        raw = memoryview(flat)
        require_size(name, raw, self.limit)
        plain = name != "lzma" or self.codec.format == lzma.FORMAT_XZ
        found = bounded(name, raw, self.limit) if plain else None
        return self.codec.decode(data) if found is None else found


Decode = Callable[[Any, Any, Any], Any]


def _guard_v2(decode: Decode) -> Decode:
    @wraps(decode)
    async def guarded(self: Any, chunk_bytes: Any, chunk_spec: Any) -> Any:
        room = _room(chunk_spec)
        compressor = self.compressor and _Bounded(self.compressor, room)
        count = prod(chunk_spec.shape)
        filters = tuple(
            _FewTexts(one, count) if one.codec_id == "vlen-utf8" else one
            for one in self.filters or ()
        )
        known = replace(self, compressor=compressor, filters=filters or None)
        return await decode(known, chunk_bytes, chunk_spec)

    return guarded


def _guard_v3(name: str, decode: Decode) -> Decode:
    @wraps(decode)
    async def guarded(self: Any, chunk_bytes: Any, chunk_spec: Any) -> Any:
        if name == "vlen-utf8":
            _require_few(chunk_bytes.as_numpy_array(), prod(chunk_spec.shape))
            return await decode(self, chunk_bytes, chunk_spec)
        raw, room = memoryview(chunk_bytes.as_numpy_array()), _room(chunk_spec)
        require_size(name, raw, room)
        found = bounded(name, raw, room)
        if found is None:
            return await decode(self, chunk_bytes, chunk_spec)
        return chunk_spec.prototype.buffer.from_bytes(found)

    return guarded


class _FewTexts:
    """A filter of Zarr 2 that makes texts, of which there are as many as its chunk has places."""

    def __init__(self, codec: Any, count: int) -> None:
        self.codec, self.count = codec, count

    def decode(self, data: Any) -> Any:
        _require_few(np.ascontiguousarray(data), self.count)
        return self.codec.decode(data)


def _require_few(data: Any, most: int) -> None:
    count = int.from_bytes(data.view(np.uint8).reshape(-1)[:4].tobytes(), "little")
    if count > most:
        raise ChunkTooLarge(f"a chunk claims {count} texts, its array has room for {most}")


def _install() -> None:
    """Zarr offers no place for this: its decoders are wrapped, once in each process."""
    codecs: dict[str, type[BytesBytesCodec] | type[VLenUTF8Codec]] = {
        **{"blosc": BloscCodec, "zstd": ZstdCodec, "gzip": GzipCodec, "vlen-utf8": VLenUTF8Codec},
    }
    for name, kind in (
        *codecs.items(),
        *(("blosc", Blosc), ("zstd", Zstd), ("gzip", GZip), ("zlib", Zlib)),
        *(("lz4", LZ4), ("bz2", BZ2), ("lzma", LZMA)),
    ):
        setattr(kind, "_decode_single", _guard_v3(name, kind._decode_single))  # noqa: B010
    setattr(V2Codec, "_decode_single", _guard_v2(V2Codec._decode_single))  # noqa: B010


_install()
