"""Pointwise maps as variables of the `normals` artifact, and back.

transform(channel)                      its name
bounds(channel, limit: lowest, highest) of logit and rank; infinite or missing where there is none
rank_quantiles(ranked, knot, *grid)     values above the bound at rank_levels(knot)
rank_share, rank_atom(ranked, *grid)    how often a cell is at its lower bound, and its score
rank_slope(ranked)                      least slope below the knots
rank_tail_scale(ranked, *grid), rank_tail_shape(ranked)   of the tail beyond them (tail.py)

Where values follow a forcing (forced.py), all these but the levels have a dimension `world` after
`ranked`, and there are

rank_world(world, forcing)              the covariates of each, in standard units
rank_times(world)                       how many training times each had
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.fields.pointwise.forced import ForcedScores
from pipeline.fields.pointwise.maps import SIMPLE, Logit, Marginal
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.pointwise.tail import RankTail

__all__ = ["pointwise_of", "pointwise_variables"]


def pointwise_variables(maps: Mapping[str, Marginal], dims: tuple[str, ...]) -> xr.Dataset:
    """The maps of all channels, on these grid dimensions."""
    limits = [
        (one.low, one.high)
        if isinstance(one, Logit | NormalScores | ForcedScores)
        else (np.nan, np.nan)
        for one in maps.values()
    ]
    transforms = np.asarray([one.name for one in maps.values()])
    dataset = xr.Dataset(
        {"bounds": (("channel", "limit"), np.asarray(limits, np.float64))},
        coords={"channel": np.asarray(list(maps)), "transform": ("channel", transforms)},
    )
    plain = {name: one for name, one in maps.items() if isinstance(one, NormalScores)}
    forced = {name: one for name, one in maps.items() if isinstance(one, ForcedScores)}
    if plain:
        return dataset.merge(_ranked(plain, dims))
    if not forced:
        return dataset
    worlds = [
        _ranked(dict(zip(forced, of_world, strict=True)), dims)
        for of_world in zip(*(one.maps for one in forced.values()), strict=True)
    ]
    changing = [name for name in worlds[0] if name != "rank_levels"]
    together = xr.concat([each[changing] for each in worlds], "world")
    first = next(iter(forced.values()))
    return dataset.merge(together.transpose("ranked", "world", ...)).assign(
        rank_levels=worlds[0]["rank_levels"],
        rank_world=(("world", "forcing"), first.forcing),
        rank_times=("world", first.times),
    )


def _ranked(maps: Mapping[str, NormalScores], dims: tuple[str, ...]) -> xr.Dataset:
    """What was fitted to the ranks of some variables."""

    def stacked(part: str) -> np.ndarray:
        return np.stack([getattr(one, part) for one in maps.values()])

    return xr.Dataset(
        {
            "rank_quantiles": (("ranked", "knot", *dims), stacked("quantiles")),
            "rank_levels": (("ranked", "knot"), stacked("levels")),
            "rank_share": (("ranked", *dims), stacked("share")),
            "rank_atom": (("ranked", *dims), stacked("atom")),
            "rank_slope": (("ranked",), stacked("slope")),
            "rank_tail_scale": (
                ("ranked", *dims),
                np.stack([one.tail.scale for one in maps.values()]),
            ),
            "rank_tail_shape": (
                ("ranked",),
                np.stack([one.tail.shape for one in maps.values()]),
            ),
        },
        coords={"ranked": np.asarray(list(maps))},
    )


def pointwise_of(normals: xr.Dataset, dims: tuple[str, ...]) -> tuple[Marginal, ...]:
    """The map of each channel."""
    maps: list[Marginal] = []
    for channel in map(str, normals["channel"].to_numpy()):
        name = str(normals["transform"].sel(channel=channel).item())
        if name in SIMPLE:
            maps.append(SIMPLE[name])
            continue
        low, high = normals["bounds"].sel(channel=channel).to_numpy().tolist()
        if name == "logit":
            maps.append(Logit(low=low, high=high))
            continue
        ranked = normals.sel(ranked=channel)
        if "world" not in normals.dims:
            maps.append(_scores(ranked, low, high, dims))
            continue
        worlds = range(normals.sizes["world"])
        forced = ForcedScores(
            maps=tuple(_scores(ranked.isel(world=k), low, high, dims) for k in worlds),
            forcing=normals["rank_world"].transpose("world", "forcing").to_numpy(),
            times=normals["rank_times"].to_numpy(),
        )
        maps.append(forced)
    return tuple(maps)


def _scores(ranked: xr.Dataset, low: float, high: float, dims: tuple[str, ...]) -> NormalScores:
    fitted: dict[str, Any] = {
        part: ranked[f"rank_{part}"].transpose(..., *dims).to_numpy()
        for part in ("quantiles", "share", "atom", "tail_scale")
    }
    tail = RankTail(scale=fitted.pop("tail_scale"), shape=float(ranked["rank_tail_shape"]))
    return NormalScores(
        low=low,
        high=high,
        levels=ranked["rank_levels"].to_numpy(),
        slope=float(ranked["rank_slope"]),
        tail=tail,
        **fitted,
    )
