"""What a configuration has to say about times and values of a source: splits, masks, fills."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from flows.config.schema import Source
from storage.conventions.axes import toml_key
from storage.conventions.stated_values import explained
from storage.sources.empty_maps import require_values_at_all_times
from storage.sources.sources import Missing, SourceError, SourceReport
from storage.sources.values import Settled, is_plausible

__all__ = [
    "beforehand",
    "masks_of",
    "require_policies",
    "require_values",
]

MASK_EVER = "mask-ever"  # the policy of cells that are missing at some times


def beforehand(source: Source) -> bool:
    """Whether what is written depends on masks, so that all values are looked at first.

    Otherwise they are looked at while they are written, and read once.
    """
    policies = [source.fill_of(name) for name in source.variables]
    masked = any(isinstance(policy, float) or policy == MASK_EVER for policy in policies)
    return bool(source.missing) or masked


def masks_of(source: Source, settled: Settled, notes: list[str]) -> dict[str, np.ndarray]:
    """The cells of each variable that have no value in the fields."""
    masks = {}
    for name in source.variables:
        if name not in settled.masks:
            continue
        masks[name] = settled.masks[name]
        if source.fill_of(name) == MASK_EVER:
            masks[name] = settled.ever[name]
            more = int((masks[name] & ~settled.masks[name]).sum())
            notes.append(f"{name}: {more} cells that are missing at some times are masked at all")
    return masks


def require_values(
    source: Source, settled: Settled, maps: Settled, fields: xr.Dataset, report: SourceReport
) -> None:
    """Raise SourceError if values are missing in a way that nobody provided for.

    Args:
        settled, maps: What was found of the variables, and of the maps without time.
    """
    with explained(report.notes):
        require_values_at_all_times(
            fields["time"], settled.empty, report.files, report.origins, source.group
        )
        require_policies(source, {**settled.missing, **maps.missing}, fields)


def require_policies(source: Source, missing: Mapping[str, Missing], fields: xr.Dataset) -> None:
    """Raise SourceError if values are missing in a way `source.fill` does not provide for."""
    for name, found in missing.items():
        policy, key = source.fill_of(name), toml_key(name)
        bounds = source.valid_range.get(name)
        if isinstance(policy, float) and not found.static:
            plausible, low, high = is_plausible(fields[name], policy, bounds)
            if not plausible:
                unit = fields[name].attrs.get("units")
                raise SourceError(
                    f"source.fill: {name} would be {policy:g} {unit} where it is missing, which is "
                    f"out of range ({low:g} to {high:g}). Mask the cells that are missing at some "
                    f'time: source.fill = {{ {key} = "{MASK_EVER}" }}'
                )
        elif not found.static and policy != MASK_EVER:
            raise SourceError(_moving(name, found, is_plausible(fields[name], 0.0, bounds)[0]))
        if policy == MASK_EVER and found.everywhere:
            raise SourceError(
                f"{name}: every cell is missing at some time, so that masking those leaves nothing;"
                " complete the source"
            )
        if policy == "refuse":
            raise SourceError(
                f"{name}: {found.fraction:.1%} of its values are missing; say how the model shall "
                f'fill these cells: source.fill = {{ {key} = "harmonic" }} (the '
                "ensemble has them masked again)"
            )


def _moving(name: str, found: Missing, zero: bool) -> str:
    """How cells can be dealt with that are missing at some times only."""
    key = toml_key(name)
    some = f"{found.moving} of them are" if found.moving < found.count else "all of them"
    ways = ["Complete the source"]
    if not found.everywhere:
        ways.append(f'mask these cells at all times: source.fill = {{ {key} = "{MASK_EVER}" }}')
    if zero:
        ways.append(f"say what a missing value stands for: source.fill = {{ {key} = 0.0 }}")
    return (
        f"{name}: {found.count} values are missing, {some} in {found.cells} cells that have values "
        "at other times, as at a moving ice edge or in a satellite's gaps; only cells that are "
        f"missing always can be filled from their neighbours. {', or '.join(ways)}"
    )
