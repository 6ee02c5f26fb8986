"""The arrays of units as xarray's lazy ones, read shard by shard without zarr's pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from storage.artifacts.overlaps import overlaps
from storage.artifacts.shards import ShardLayout
from storage.artifacts.units import WaitingArray
from storage.places.places import Place

__all__ = ["with_stored_arrays"]


def with_stored_arrays(dataset: xr.Dataset, path: Place, metadata: Mapping[str, Any]) -> xr.Dataset:
    """The dataset of a published store, its units' arrays read by `StoredArray`.

    Args:
        metadata: zarr.json of every array, by name; those of units are sharded.
    """
    variables = {}
    for name, described in metadata.items():
        if described["codecs"][0]["name"] != "sharding_indexed":
            continue
        array, layout = WaitingArray.of(described), ShardLayout.of(described)
        lazy = indexing.LazilyIndexedArray(StoredArray(path / name, array, layout))
        cached: Any = indexing.MemoryCachedArray(lazy)  # type: ignore[no-untyped-call]
        known = dataset[name].variable
        variables[name] = xr.Variable(
            array.dims, indexing.CopyOnWriteArray(cached), known.attrs, known.encoding
        )
    return dataset.assign(variables)


@dataclass(frozen=True)
class StoredArray(BackendArray):
    """An array below its directory; every index reads just the chunks that it touches."""

    directory: Place
    array: WaitingArray
    layout: ShardLayout

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.layout.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._at
        )

    def _at(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Values at one integer, slice or array of integers for each dimension."""
        places = [_places(k, size) for k, size in zip(key, self.shape, strict=True)]
        wanted = [np.unique(place) if len(place) else place for place in places]
        values = np.empty([len(place) for place in wanted], self.dtype)
        for box in itertools.product(*(list(_runs(place)) for place in wanted)):
            region = tuple(run for run, _ in box)
            self._fill(region, values[tuple(target for _, target in box)])
        for axis, (place, known) in enumerate(zip(places, wanted, strict=True)):
            if not np.array_equal(place, known):
                values = values.take(np.searchsorted(known, place), axis=axis)
        return values[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]

    def _fill(self, region: tuple[slice, ...], out: npt.NDArray[Any]) -> None:
        for shard in overlaps(region, self.layout.shard):
            file = self.directory.joinpath("c", *map(str, shard.place))
            self.layout.read(file, shard.inside, out[shard.target])


def _places(key: Any, size: int) -> npt.NDArray[np.intp]:
    if isinstance(key, slice):
        return np.arange(*key.indices(size))
    places = np.atleast_1d(np.asarray(key, np.intp))
    return np.where(places < 0, places + size, places)


def _runs(places: npt.NDArray[np.intp]) -> Iterator[tuple[slice, slice]]:
    """Ascending places as slices of neighbours, and where each lies among the places."""
    cuts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    for start, stop in itertools.pairwise(cuts):
        if stop > start:
            yield slice(int(places[start]), int(places[stop - 1]) + 1), slice(start, stop)
