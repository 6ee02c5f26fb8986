"""`spherescore export`: the published ensemble, or sequences, as files for readers without Zarr.

NetCDF files are made on the cluster, one task each; a second export finds them and writes nothing.
`item.json`, a STAC item with the digest of every file, is written last.
"""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cluster.local import client_on_demand
from flows.cluster.map_units import map_units
from flows.config.schema import ConfigError, RunConfig
from flows.progress import Progress, stage_progress
from flows.stages.base import published_input
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.artifacts.lock import in_use
from storage.artifacts.sealed import read_json
from storage.export.netcdf import Cmip, is_written, planned_files, write_netcdf
from storage.export.pyramid import NAME, write_pyramid
from storage.export.stac import stac_item
from storage.places.files import write_file

if TYPE_CHECKING:
    from distributed import Client

FORMATS = ("netcdf", "pyramid")
ENSEMBLE = "ensemble"
ITEM = "item.json"
SCRATCH = ".scratch"


def export(
    config: RunConfig, directory: Path, format: str, cmip: Cmip | None, of: str = ENSEMBLE
) -> dict[str, Any]:
    """Export what a run has drawn, in which nothing is written, to a directory.

    Args:
        of: What is exported: "ensemble", "sequences", or either with "-NAME" after it.
    Returns:
        `directory`, `item`, and how many files there are and were `written` now.
    """
    layout = config.layout
    scratch = directory.absolute() / SCRATCH  # all workers reach it, for they write beside it
    with (
        in_use(layout, reading=True),
        client_on_demand(config.cluster, scratch) as client,
        stage_progress("export") as progress,
    ):
        result = export_with(client, progress, layout, directory, format, cmip, of)
    with suppress(OSError):  # absent, or with the logs of a cluster
        scratch.rmdir()
    return result


def export_with(
    client: "Client",
    progress: Progress,
    layout: StoreLayout,
    directory: Path,
    format: str,
    cmip: Cmip | None,
    of: str = ENSEMBLE,
) -> dict[str, Any]:
    """Export with workers that are there; they are asked for nothing if nothing is missing."""
    ensemble = drawn(layout, of)
    fields = artifacts.open_artifact(ensemble)
    directory.mkdir(parents=True, exist_ok=True)
    if format == "pyramid":
        files: list[dict[str, Any]] = [{"path": NAME}]
        written = int(write_pyramid(ensemble, directory))
    else:
        planned = planned_files(fields, cmip)
        known = _known(directory)
        done = {
            file.path: known[file.path]
            for file in planned
            if file.path in known and is_written(ensemble, directory / file.path)
        }
        missing = [file for file in planned if file.path not in done]
        write = partial(write_netcdf, ensemble, directory)
        made = map_units(client, write, missing, progress, label="file", done=len(done))
        done |= {record["path"]: record for record in made}
        files, written = [done[file.path] for file in planned], len(made)
    item = json.dumps(stac_item(fields, files), indent=1, ensure_ascii=False).encode()
    if not (directory / ITEM).exists() or (directory / ITEM).read_bytes() != item:
        write_file(directory / ITEM, item)
    return {
        "directory": str(directory),
        "item": str(directory / ITEM),
        "files": len(files),
        "written": written,
    }


def drawn(layout: StoreLayout, of: str) -> artifacts.Published:
    """What a run has drawn under a name, such as "ensemble", "sequences" or "sequences-heat".

    Raises:
        ConfigError: If nothing that is exported has such a name.
        IncompleteArtifact: If it is not published.
    """
    kind, _, label = of.partition("-")
    if kind not in (ENSEMBLE, "sequences"):
        raise ConfigError(
            f"--of: expected ensemble, ensemble-NAME, sequences or sequences-NAME, got {of!r}"
        )
    if kind == ENSEMBLE and not label:
        return published_input(layout, kind)
    found = artifacts.published(layout, kind, label)
    if found is None:
        asked = "scenarios" if kind == ENSEMBLE else kind
        there = ", ".join(place.name.removesuffix(".zarr") for place in layout.names(kind)[1:])
        raise artifacts.IncompleteArtifact(
            f"{layout.name(kind, label)} is not published; run `spherescore generate` with "
            f"[generate] {asked} first{f'; there are {there}' if there else ''}"
        )
    return found


def _known(directory: Path) -> dict[str, dict[str, Any]]:
    """Path, size and sha256 of the files that the item of an earlier export lists."""
    if not (directory / ITEM).exists():
        return {}
    found = {}
    for asset in read_json(directory / ITEM).get("assets", {}).values():
        path, size = asset["href"].removeprefix("./"), asset.get("file:size")
        file = directory / path
        if file.is_file() and file.stat().st_size == size:
            digest = asset["file:checksum"].removeprefix("1220")
            found[path] = {"path": path, "size": size, "sha256": digest}
    return found
