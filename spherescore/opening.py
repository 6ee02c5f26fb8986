"""What a run has published, as xarray datasets, and the engine of xarray.

A run replaces its ensemble by leading the name `ensemble.zarr` to another store. Here the name is
followed once, so that all values of a dataset are of one ensemble, whatever is published meanwhile.
(zarr follows it again for each chunk: a dataset that `xr.open_zarr("runs/demo/ensemble.zarr")`
gave, and that is still read while the run publishes, has values of both.) Missing and changed bytes
are errors here, never fill values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

if TYPE_CHECKING:
    import xarray as xr

    from storage.artifacts.publishing import Published

__all__ = [
    "SpherescoreBackend",
    "open_conditioned",
    "open_ensemble",
    "open_fields",
    "open_sequences",
]

KINDS = ("ensemble", "series", "sequences", "conditioned", "fields")
Chunks = Mapping[str, int]


def open_ensemble(
    root: str | os.PathLike[str], name: str = "", *, chunks: Chunks | None = None
) -> xr.Dataset:
    """Open the ensemble that a run has published last.

    Args:
        root: The run's directory, or s3://bucket/prefix; `ensemble.zarr` below it, or a copy of
            that store, will do, too.
        name: Of a scenario, as `generate.scenarios` names it; its realizations are paired with
            those of the others.
        chunks: Sizes of Dask chunks by dimension, e.g. {"realization": 1}; without them values are
            read when they are asked for, by this process.
    Returns:
        Dimensions (realization, time, lat, lon), or (realization, time, cell) on HEALPix; bounds
        and grid mappings are coordinates.
    Raises:
        FileNotFoundError: If nothing is published there.
        storage.artifacts.publishing.CorruptArtifact: If what is there is not what was published.
    Examples:
        >>> ensemble = spherescore.open_ensemble("runs/demo")
        >>> ensemble["pr"].sel(time="2002-07-15").quantile(0.9, "realization")
    """
    from storage.artifacts.layout import labelled

    return _open(root, labelled("ensemble", name), chunks)


def open_sequences(
    root: str | os.PathLike[str], name: str = "", *, chunks: Chunks | None = None
) -> xr.Dataset:
    """Open the sequences of days that a run has published last: as `open_ensemble`, the times one
    after the other.

    Args:
        name: Which of several, as the configuration names them.
    """
    from storage.artifacts.layout import labelled

    return _open(root, labelled("sequences", name), chunks)


def open_conditioned(root: str | os.PathLike[str], *, chunks: Chunks | None = None) -> xr.Dataset:
    """Open the fields that were drawn given observations or an event: as `open_ensemble`."""
    return _open(root, "conditioned", chunks)


def open_fields(root: str | os.PathLike[str], *, chunks: Chunks | None = None) -> xr.Dataset:
    """Open the fields that a run was trained on: as `open_ensemble`, without realizations."""
    return _open(root, "fields", chunks)


class SpherescoreBackend(BackendEntrypoint):
    """The engine "spherescore" of xarray: opens the root of a run, or a name below it."""

    description = "Open what a run of spherescore has published, its name followed once"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "kind")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        kind: str | None = None,
    ) -> xr.Dataset:
        """Open one of `KINDS`, by default the one that the name means, else the ensemble.

        Args:
            kind: Of several sequences, and copies of them, with its name: "sequences-heat".
        """
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables
        opened = _open(filename_or_obj, kind, None)
        return opened.drop_vars(list(dropped or ()), errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is a name that a run has given, or a run that has an ensemble."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        text = os.fspath(filename_or_obj)
        if not isinstance(text, str) or "://" in text:
            return False
        names = [Path(text), Path(text, "ensemble.zarr")]
        return any(
            name.is_symlink() and Path(os.readlink(name)).parts[:1] == ("artifacts",)
            for name in names
            if _known(name.stem)
        )


def _open(
    place: str | os.PathLike[str], kind: str | None, chunks: Mapping[str, int] | None
) -> xr.Dataset:
    from storage.artifacts.publishing import open_artifact

    return open_artifact(_published(os.fspath(place), kind), chunks=chunks)


def _published(text: str, kind: str | None) -> Published:
    """What is published at the root of a run, under a name below it, or is a store copied away."""
    from storage.artifacts.layout import StoreLayout
    from storage.artifacts.publishing import published

    place = os.path.expanduser(text).rstrip("/") or "/"
    named = Path(place).name.removesuffix(".zarr") if place.endswith(".zarr") else ""
    root, kind_there = (os.path.dirname(place) or ".", named) if _known(named) else (place, "")
    kind = kind or kind_there or "ensemble"
    if not _known(kind):
        raise ValueError(f"a run publishes {', '.join(KINDS)}; got kind {kind!r}")
    layout = StoreLayout(root if kind_there in ("", kind) else place)
    plain, _, label = kind.partition("-")
    found = published(layout, plain, label) or _copied(Path(place), plain)
    if found is None:
        raise FileNotFoundError(
            f"{layout.name(plain, label)} is not published; give the directory of a run, or finish "
            "it: spherescore run CONFIG"
        )
    return found


def _known(kind: str) -> bool:
    """Whether it is one of `KINDS`, or one of those that a run may have several of."""
    plain, _, label = kind.partition("-")
    return plain in KINDS and (not label or plain in ("ensemble", "series", "sequences"))


def _copied(store: Path, kind: str) -> Published | None:
    """A published store without the rest of its run, as `cp -rL` leaves it."""
    from storage.artifacts.published import Published, verified_marker

    if not (store / "zarr.json").is_file():
        return None
    store = store.resolve()
    attrs = verified_marker(store)["attributes"]
    if attrs["artifact_kind"] != kind:
        raise ValueError(f"{store} holds {attrs['artifact_kind']}, not {kind}")
    key, digest = attrs["artifact_key"], attrs["artifact_digest"]
    return Published(path=store, kind=kind, key=key, digest=digest, attrs=attrs)
