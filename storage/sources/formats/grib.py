"""GRIB 1 and 2 by cfgrib, which makes one table of each kind of level or step.

cfgrib knows a message by parameter, level, member, start and step. Of messages that are the same
in all of these (accumulations of 0-6 h and of 3-6 h, two parameters without a name, a field that
is stored twice) it keeps the first. So messages are counted, and a variable that has lost some is
refused with what tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, toml_key
from storage.guards.grib_whole import require_whole_messages
from storage.sources.formats.reading import Reading, first_line, require_package

__all__ = ["open_grib"]

# What may tell two messages apart that cfgrib takes for one; the first that does is offered.
_KEYS = (
    *("stepRange", "stepType", "experimentVersionNumber", "marsClass", "marsStream", "marsType"),
    *("discipline", "parameterCategory", "parameterNumber", "indicatorOfParameter"),
    *(
        "table2Version",
        "centre",
        "subCentre",
        "generatingProcessIdentifier",
        "typeOfEnsembleForecast",
    ),
    *("typeOfFirstFixedSurface", "level", "bottomLevel", "constituentType", "aerosolType"),
    *("productDefinitionTemplateNumber", "hoursAfterDataCutoff", "dataDate", "dataTime"),
)


def open_grib(path: str, reading: Reading) -> list[xr.Dataset]:
    """The tables of a file; of variables whose messages clash, the messages that are asked for."""
    require_package("cfgrib", path, "grib")
    count = require_whole_messages(Path(path))
    tables = _opened(path, {})
    clashing = _account_for_messages(path, tables, count)
    chosen: list[xr.Dataset] = []
    for name, clash in clashing.items():
        keys = {key: value for key, value in reading.grib.items() if clash.tells(key)}
        if not keys:
            continue
        asked = [table[[name]] for table in _opened(path, keys) if name in table]
        if not asked:
            said = " and ".join(f"{key} = {value!r}" for key, value in keys.items())
            raise SourceError(f"{path}: no message of {name} has {said} (source.grib)")
        _account_for_messages(path, asked, None)
        tables = [table.drop_vars(name, errors="ignore") for table in tables]
        chosen += asked
    for table in tables:
        for one in chosen:
            for name in map(str, one.data_vars):
                table.encoding["refused"].pop(name, None)
    return [*tables, *chosen]


@dataclass(frozen=True)
class _Clash:
    """Messages that cfgrib takes for one and the same."""

    messages: Sequence[Any]

    def lost_values(self) -> bool:
        """Whether any of them has other values than the one that is kept."""
        first, *others = (np.asarray(each.get("values")) for each in self.messages)
        return not all(np.array_equal(first, other) for other in others)

    def tells(self, key: str) -> bool:
        """Whether a key tells them apart."""
        return len({str(each.get(key, default=None)) for each in self.messages}) > 1

    def explained(self, name: str, lost: int) -> str:
        """What is lost, and the line that chooses."""
        first = self.messages[0]
        said = (
            f"{lost} messages of {name} have the time, step and level of another one, and other "
            f"values: of {first.get('dataDate')} {first.get('dataTime'):04d}"
        )
        key = next(filter(self.tells, _KEYS), None)
        if key is None:
            return (
                f"{said} there are {len(self.messages)} that differ in nothing else; take all but "
                "one of them out of the file"
            )
        values = list(dict.fromkeys(each.get(key, default=None) for each in self.messages))
        choice = values[0] if isinstance(values[0], int) else f'"{values[0]}"'
        return (
            f"{said} {key} is {' and '.join(map(str, values))}; say which are meant: "
            f"[source] grib = {{ {toml_key(key)} = {choice} }}"
        )


def _opened(path: str, keys: Mapping[str, int | str]) -> list[xr.Dataset]:
    import cfgrib

    try:
        # Without an index file: it would be a pickle beside the source.
        options = {"indexpath": "", "filter_by_keys": dict(keys)}
        tables = cfgrib.open_datasets(path, options, cache=False, decode_times=False)
    except KeyError as error:
        if keys:  # cfgrib has no word for a file without messages
            return []
        raise SourceError(f"{path} cannot be read by cfgrib ({first_line(error)})") from error
    except Exception as error:
        raise SourceError(f"{path} cannot be read by cfgrib ({first_line(error)})") from error
    if not tables and not keys:
        raise SourceError(f"{path} holds no GRIB message that can be read, truncated or corrupt?")
    for table in tables:
        table.encoding |= {"refused": {}, "notes": [], "messages": {}}
    return list(tables)


def _account_for_messages(
    path: str, tables: Sequence[xr.Dataset], count: int | None
) -> dict[str, _Clash]:
    """Variables of which messages are lost, and how; their tables say so, and what is stored twice.

    Args:
        count: How many messages the tables should have; None if they are a part of a file.
    """
    arrays = [
        (table, str(name), _on_disk(variable))
        for table in tables
        for name, variable in table.data_vars.items()
    ]
    for table, name, array in arrays:
        if array is not None:
            _mark_present(table, name, array)
    kept = sum(len(array.field_id_index) for *_, array in arrays if array is not None)
    if kept == count:
        return {}
    clashing = {}
    for table, name, array in arrays:
        clashes = list(_clashes(array)) if array is not None else []
        lost = sum(len(clash.messages) - 1 for clash in clashes)
        if other := next((clash for clash in clashes if clash.lost_values()), None):
            table.encoding["refused"][name] = other.explained(name, lost)
            clashing[name] = other
        elif lost:
            said = f"{name}: {lost} messages that are stored twice, dropped"
            table.encoding["notes"].append(said)
    for name, lost in _dropped(path, arrays).items() if count is not None else ():
        tables[0].encoding["refused"][name] = (
            f"{lost} messages of {name} do not go with the others of this name (two grids, or two "
            "parameters of one name), and would be lost; split the file first, e.g. "
            "grib_copy IN 'OUT_[paramId]_[gridType].grib'"
        )
    return clashing


def _mark_present(table: xr.Dataset, name: str, array: Any) -> None:
    """Say which combinations of time, step, member and level have a message, if not all have.

    cfgrib puts messages into a cube, and a combination that no message has reads as missing values:
    the corners of accumulations from 06 and 18 UTC, hours of monthly means that start at another
    time each.
    """
    present = np.zeros(array.shape[: -array.geo_ndim], dtype=bool)
    for place in array.field_id_index:
        present[place] = True
    if not present.all():
        dims = table[name].dims[: -array.geo_ndim]
        table.encoding["messages"][name] = xr.Variable(dims, present.squeeze())


def _clashes(array: Any) -> Iterator[_Clash]:
    for ids in array.field_id_index.values():
        if len(ids) > 1:
            yield _Clash([array.index.get_field(one) for one in ids])


def _dropped(path: str, arrays: Sequence[tuple[xr.Dataset, str, Any]]) -> dict[str, int]:
    """How many messages, by variable, are in none of the tables."""
    from cfgrib.dataset import open_fileindex
    from cfgrib.messages import FileStream

    known = {
        tuple(np.atleast_1d(one))
        for *_, array in arrays
        if array is not None
        for ids in array.field_id_index.values()
        for one in ids
    }
    index = open_fileindex(FileStream(path), "", ["cfVarName", "shortName"])
    lost: dict[str, int] = {}
    for values, ids in index.iter_index():
        names = dict(zip(index.index_keys, values, strict=True))
        usual = str(names["cfVarName"])
        name = usual if usual not in ("undef", "unknown") else str(names["shortName"])
        count = sum(tuple(np.atleast_1d(one)) not in known for one in ids)
        if count:
            lost[name] = lost.get(name, 0) + count
    return lost


def _on_disk(variable: xr.DataArray) -> Any:
    """cfgrib's array of messages below xarray's wrappers; None if it was read in merging."""
    found: Any = variable.variable._data
    while not hasattr(found, "field_id_index"):
        found = getattr(found, "array", None)
        if found is None:
            return None
    return found
