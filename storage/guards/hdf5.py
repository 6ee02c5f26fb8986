"""What an HDF5 file would have the library do beyond reading itself: other files, foreign filters.

Read only by the child process that looks at files first (storage/sources/inspector).
"""

from __future__ import annotations

from math import prod
from typing import Any

import h5py

from storage.conventions.axes import SourceError, UnsafeSource
from storage.guards.codecs import LARGEST_CHUNK

__all__ = ["require_plain"]

_FILTERS = {  # those that come with the library or with netCDF4
    **{1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"},
    **{307: "bzip2", 32001: "blosc", 32015: "zstd"},
}
_MOST = 100_000  # objects in a file


def require_plain(path: str) -> None:
    """Look at every object of a file.

    Raises:
        UnsafeSource: If one leads to another file, or needs a filter that is not allowed.
        SourceError: If a chunk is too large to be read at once, or the objects are too many.
    """
    with h5py.File(path, "r") as file:
        waiting, seen = [file["/"]], set()
        while waiting:
            group = waiting.pop()
            for name in group:
                place = f"{group.name.rstrip('/')}/{name}"
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise UnsafeSource(
                        f"{path}: {place} is a link into another file ({link.filename}); links are "
                        "not followed, copy what is meant into the file: h5repack or nccopy"
                    )
                if isinstance(link, h5py.SoftLink) and link.path.count("/") > 100:
                    raise UnsafeSource(f"{path}: {place} is a link of {len(link.path)} letters")
                one = group.get(name)
                if one is None:
                    continue  # a link to nothing
                address = h5py.h5o.get_info(one.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if len(seen) > _MOST:
                    raise SourceError(f"{path} has more than {_MOST} objects")
                if isinstance(one, h5py.Group):
                    waiting.append(one)
                elif isinstance(one, h5py.Dataset):
                    _require_plain(one, place, path)


def _require_plain(dataset: Any, place: str, path: str) -> None:
    made = dataset.id.get_create_plist()
    if made.get_external_count():
        raise UnsafeSource(
            f"{path}: the values of {place} lie in another file "
            f"({made.get_external(0)[0]!r}), which is not followed; copy them into it: h5repack"
        )
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise UnsafeSource(
            f"{path}: {place} is a virtual dataset of other files, which are not followed; give "
            "these files, or copy them into one: h5repack"
        )
    for index in range(made.get_nfilters()):
        number = made.get_filter(index)[0]
        if number not in _FILTERS:
            raise UnsafeSource(
                f"{path}: {place} is packed by the HDF5 filter {number}, which is not among those "
                f"that are read ({', '.join(_FILTERS.values())}); repack it: h5repack -f GZIP=4"
            )
    if made.get_layout() == h5py.h5d.CHUNKED:
        size = prod(made.get_chunk()) * dataset.id.get_type().get_size()
        if size > LARGEST_CHUNK:
            raise SourceError(
                f"{path}: a chunk of {place} has {size} bytes, more than the {LARGEST_CHUNK} that "
                "are read at once; write it in smaller chunks: nccopy -c"
            )
