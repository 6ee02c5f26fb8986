"""What a unit of fields is made of, so that a later ingest takes unchanged units as they are.

New files make a new artifact, for published ones never change; but a unit whose times, files and
masks are those of a unit of an older artifact is that unit, and is linked instead of written.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import xarray as xr

from storage.artifacts.keys import canonical_json
from storage.artifacts.units import Unit
from storage.sources.sources import SourceReport


def marked(
    units: Sequence[Unit],
    fields: xr.Dataset,
    report: SourceReport,
    digests: Mapping[str, str],
    masks: Mapping[str, np.ndarray],
) -> list[Unit]:
    """Units with the sha256 of what their values follow from, under one configuration.

    Args:
        fields: The dataset to write, opened.
        report: Its report, with the file of each time.
        digests: sha256 of the files, by their names in the report.
        masks: Cells that are missing always, by variable.
    """
    times = [str(time) for time in fields["time"].values]
    member = fields["member"].values.tolist() if "member" in fields.coords else []
    hidden = {name: _digest(mask) for name, mask in masks.items()}
    along = {
        str(name): array.values
        for name, array in fields.data_vars.items()
        if array.dims == ("time",)
    }
    result = []
    for unit in units:
        part = unit.region["time"]
        origins = {
            name: [
                [digests[report.files[file]], len(list(run))]
                for file, run in groupby(origin[part].tolist())
            ]
            for name, origin in report.origins.items()
        }
        made_of = {
            "times": times[part],
            "member": member[part],
            "origins": origins,
            "masks": hidden,
            "covariates": {name: _digest(values[part]) for name, values in along.items()},
        }
        mark = hashlib.sha256(canonical_json(made_of).encode()).hexdigest()
        result.append(replace(unit, mark=mark))
    return result


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
