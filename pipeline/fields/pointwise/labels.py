"""Pointwise maps as variables of the `normals` artifact, and back.

transform(channel)                      its name
bounds(channel, limit: lowest, highest) of logit and rank; infinite or missing where there is none
rank_quantiles(ranked, knot, *grid)     values above the bound at rank_levels(knot)
rank_share, rank_atom(ranked, *grid)    how often a cell is at its lower bound, and its score
rank_slope(ranked)                      least slope below the knots
rank_tail_scale(ranked, *grid), rank_tail_shape(ranked)   of the tail beyond them (rank_tail.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.fields.pointwise.maps import SIMPLE, Logit, Pointwise
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.pointwise.tail import RankTail

__all__ = ["pointwise_of", "pointwise_variables"]


def pointwise_variables(maps: Mapping[str, Pointwise], dims: tuple[str, ...]) -> xr.Dataset:
    """The maps of all channels, on these grid dimensions."""
    limits = [
        (one.low, one.high) if isinstance(one, Logit | NormalScores) else (np.nan, np.nan)
        for one in maps.values()
    ]
    transforms = np.asarray([one.name for one in maps.values()])
    dataset = xr.Dataset(
        {"bounds": (("channel", "limit"), np.asarray(limits, np.float64))},
        coords={"channel": np.asarray(list(maps)), "transform": ("channel", transforms)},
    )
    ranked = {name: one for name, one in maps.items() if isinstance(one, NormalScores)}
    if not ranked:
        return dataset

    def stacked(part: str) -> np.ndarray:
        return np.stack([getattr(one, part) for one in ranked.values()])

    return dataset.assign(
        rank_quantiles=(("ranked", "knot", *dims), stacked("quantiles")),
        rank_levels=(("ranked", "knot"), stacked("levels")),
        rank_share=(("ranked", *dims), stacked("share")),
        rank_atom=(("ranked", *dims), stacked("atom")),
        rank_slope=(("ranked",), stacked("slope")),
        rank_tail_scale=(("ranked", *dims), np.stack([one.tail.scale for one in ranked.values()])),
        rank_tail_shape=(("ranked",), np.stack([one.tail.shape for one in ranked.values()])),
    ).assign_coords(ranked=np.asarray(list(ranked)))


def pointwise_of(normals: xr.Dataset, dims: tuple[str, ...]) -> tuple[Pointwise, ...]:
    """The map of each channel."""
    maps: list[Pointwise] = []
    for channel in map(str, normals["channel"].to_numpy()):
        name = str(normals["transform"].sel(channel=channel).item())
        if name in SIMPLE:
            maps.append(SIMPLE[name])
            continue
        low, high = normals["bounds"].sel(channel=channel).to_numpy().tolist()
        if name == "logit":
            maps.append(Logit(low=low, high=high))
            continue
        fitted: dict[str, Any] = {
            part: normals[f"rank_{part}"].sel(ranked=channel).transpose(..., *dims).to_numpy()
            for part in ("quantiles", "share", "atom", "tail_scale")
        }
        shape = float(normals["rank_tail_shape"].sel(ranked=channel))
        tail = RankTail(scale=fitted.pop("tail_scale"), shape=shape)
        levels = normals["rank_levels"].sel(ranked=channel).to_numpy()
        slope = float(normals["rank_slope"].sel(ranked=channel))
        maps.append(
            NormalScores(low=low, high=high, levels=levels, slope=slope, tail=tail, **fitted)
        )
    return tuple(maps)
