"""Stores that are made unit by unit: laid out, what is there taken over, the rest named, published.

    store = lay_out(layout, kind, content, family, template, shards=...)
    written = ...                       each of store.missing, on any worker
    store.publish(attrs, written)

This is the one order in which all stages make a store, so that each of them goes on after an
interruption, grows without making anything twice, and appears at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from storage.artifacts.layout import StoreLayout
from storage.artifacts.published import Published
from storage.artifacts.publishing import publish
from storage.artifacts.templates import create, donors
from storage.artifacts.units import Record, Unit, adopt_units, plan_units
from storage.places.places import Place

__all__ = ["StoreInUnits", "lay_out"]


@dataclass(frozen=True, kw_only=True)
class StoreInUnits:
    """A store that is laid out and not published yet.

    Attributes:
        units: all of them, in their order.
        there: records of those that an earlier run, or a store of the same family, has written.
        missing: those that are still to be written.
        label: of the name under which it is published.
    """

    layout: StoreLayout
    kind: str
    key: str
    units: Sequence[Unit]
    there: Sequence[Record]
    missing: Sequence[Unit]
    label: str = ""

    @property
    def path(self) -> Place:
        return self.layout.artifact(self.kind, self.key)

    def publish(self, attrs: Mapping[str, Any], written: Iterable[Record]) -> Published:
        """Complete the store; see `storage.artifacts.publishing.publish`.

        Args:
            written: records of the units that were missing.
        """
        records = [*self.there, *written]
        return publish(
            self.layout, self.kind, self.key, self.units, attrs, records, label=self.label
        )


def lay_out(
    layout: StoreLayout,
    kind: str,
    key: str,
    family: str,
    template: xr.Dataset,
    *,
    shards: Mapping[str, int],
    chunks: Mapping[str, int] | None = None,
    compress: bool = True,
    label: str = "",
    marked: Callable[[list[Unit]], list[Unit]] | None = None,
) -> StoreInUnits:
    """Lay out a store, find the units that are there, and take over those of its family.

    Args:
        key: content key of the store.
        family: stores of one family share units that have the same region and mark.
        template: see `storage.artifacts.templates.create`.
        shards: what a unit covers, size by dimension; other dimensions are covered whole.
        chunks: what is read at once; the shards where not given.
        label: of its name, for kinds that a run may have several of.
        marked: gives units their marks, where the values of a unit follow from more than the
            family says.
    """
    path = layout.artifact(kind, key)
    layers = shards if chunks is None else chunks
    create(path, template, chunks=layers, shards=shards, compress=compress, family=family)
    units = plan_units({str(dim): size for dim, size in template.sizes.items()}, shards)
    if marked is not None:
        units = marked(units)
    there, missing = adopt_units(path, units, donors(layout, kind, family))
    return StoreInUnits(
        layout=layout,
        kind=kind,
        key=key,
        units=units,
        there=there,
        missing=missing,
        label=label,
    )
