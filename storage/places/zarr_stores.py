"""What zarr and xarray open at a place: a path, or a bucket by the requests of
storage/places/buckets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from storage.places.places import BucketPath, Place, sizes_below

__all__ = ["zarr_store"]


def zarr_store(place: Place) -> Path | Store:
    """Open a store for reading alone."""
    return BucketStore(place) if isinstance(place, BucketPath) else place


class BucketStore(Store):
    """The objects below a key, as zarr wants them; requests are repeated as all of ours are."""

    def __init__(self, place: BucketPath) -> None:
        super().__init__(read_only=True)
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and other.place == self.place

    def __str__(self) -> str:
        return str(self.place)

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        if not read_only:
            raise ValueError(f"{self.place} is opened for reading")
        return self

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            content = await asyncio.to_thread((self.place / key).read_bytes)
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(_part(content, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.place / key).is_file)

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(sizes_below, self.place):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        directory = self.place / prefix.strip("/")
        for one in await asyncio.to_thread(lambda: [*directory.iterdir()]):
            yield one.name

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError(f"{self.place} is opened for reading")

    async def delete(self, key: str) -> None:
        raise NotImplementedError(f"{self.place} is opened for reading")


def _part(content: bytes, byte_range: Any) -> bytes:
    match byte_range:
        case RangeByteRequest(start=start, end=end):
            return content[start:end]
        case OffsetByteRequest(offset=offset):
            return content[offset:]
        case SuffixByteRequest(suffix=suffix):
            return content[len(content) - min(suffix, len(content)) :]
    return content
