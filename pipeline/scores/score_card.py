"""The score card: every candidate ensemble against held-out fields, beside its noise floor.

A candidate is a `Sample`: physical fields (realization, time, *grid) and the scaled anomalies'
coefficients (realization, time, channel, coefficient), both at the held-out times. All candidates
(the model, its Gaussian baselines, real fields of other years) pass through the same code. The
result is plain nested dicts, ready for JSON:

    scores[variable][score][candidate] = {value, standard_error, ratio: {value, low, high} | None,
                                          excess}
    joint[score][candidate]            = the same; correlations between variables, whole fields
    spectra[variable]                  = {degree, held_out, ratio: {candidate: {value, low, high}}}
    ranks[variable][candidate]         = frequencies of rank 0 ... R

`ratio` is the score over the noise floor's, `excess` its difference to it in standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.scores.bootstrap import Blocks, Estimate, Ratio, mean_over_dates
from pipeline.scores.maps import (
    IntArray,
    correlation_errors,
    equal_area_bands,
    map_errors,
    map_statistics,
    spectrum_error,
)
from pipeline.scores.proper_scores import (
    Energies,
    fair_crps,
    rank_histogram,
    reliability_error,
    spread_over_error,
)
from pipeline.sphere.coefficients import mean_by_degree

FLOOR = "noise-floor"
BAND_SAMPLE = 10_000  # values that share one 99.9 % quantile: ten lie above it, often of one storm

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One candidate's fields and coefficients; the held-out sample has no realization."""

    fields: xr.Dataset
    coefficients: xr.DataArray


@dataclass(frozen=True, kw_only=True)
class Arena:
    """What all candidates have in common.

    Attributes:
        truth: The held-out sample.
        expected: The seasonal climatology in physical units, as the truth's fields.
        area: Quadrature weights on the grid.
        weights: Date weights (replicate, date) of pipeline/scores/bootstrap.py.
        block: Dates that hang together, as in the weights.
    """

    truth: Sample
    expected: xr.Dataset
    area: xr.DataArray
    weights: FloatArray
    block: int

    @property
    def blocks(self) -> Blocks:
        return Blocks(dates=self.weights.shape[1], block=self.block)

    def valid(self, name: str) -> npt.NDArray[np.bool_]:
        """Cells, flattened, where the truth of a variable is never missing."""
        truth = self.truth.fields[name].transpose("time", *self.area.dims).values
        valid: npt.NDArray[np.bool_] = np.isfinite(truth).all(axis=0).ravel()
        return valid

    def cells(self, fields: xr.Dataset, name: str, owner: str) -> FloatArray:
        """Values (..., date, valid cell) of one variable; valid cells are those of the truth."""
        values = self.flat(fields[name])[..., self.valid(name)]
        if not np.isfinite(values).all():
            raise ValueError(
                f"{owner} has {np.count_nonzero(~np.isfinite(values))} missing values of {name} "
                "in cells where the held-out fields have none"
            )
        result: FloatArray = values.astype(np.float64)
        return result

    def flat(self, field: xr.DataArray) -> FloatArray:
        """Values (..., date, cell), those of missing cells among them."""
        ordered = field.transpose("realization", "time", *self.area.dims, missing_dims="ignore")
        values: FloatArray = ordered.values.reshape(*ordered.shape[: -self.area.ndim], -1)
        return values

    def measure(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Area and latitude of the valid cells of a variable."""
        valid = self.valid(name)
        latitude = self.truth.fields["lat"].broadcast_like(self.area).transpose(*self.area.dims)
        return self.area.values.ravel()[valid], latitude.values.ravel()[valid]

    def bands(self, name: str) -> IntArray:
        """Cells that share a 99.9 % quantile: enough for ten values beyond it.

        These are values, not dates: neighbouring cells of one storm count one by one, so that the
        quantile is less certain than ten independent events would make it.
        """
        area, latitude = self.measure(name)
        values = self.truth.fields.sizes["time"] * len(area)
        number = int(np.clip(values // BAND_SAMPLE, 1, len(np.unique(latitude))))
        return equal_area_bands(latitude, area, number)

    def maps(self, fields: xr.Dataset, name: str, owner: str) -> xr.Dataset:
        """Mean, sd, skewness and q999 on the grid; mean over realizations, each of all dates."""
        values = self.cells(fields, name, owner)
        shift = self.cells(self.expected, name, "the climatology")
        area, _ = self.measure(name)
        maps = {}
        for statistic, cells in map_statistics(values, shift, area, self.bands(name)).items():
            full = np.full(self.area.size, np.nan)
            full[self.valid(name)] = cells.reshape(-1, len(area)).mean(axis=0)
            maps[statistic] = self.area.copy(data=full.reshape(self.area.shape))
        return xr.Dataset(maps)


def score_card(
    arena: Arena, candidates: Mapping[str, Sample], climatology: xr.Dataset | None = None
) -> Table:
    """Score every candidate; see the module for the result.

    Args:
        candidates: By name; `FLOOR`, if there, is what the others are divided by.
        climatology: Draws (realization, time, *grid) of the climatological law, the reference of
            the CRPS: adds `skill` = 1 - CRPS / its CRPS to the entries of score "crps". Draws with
            the same coordinate `year` (realization, time) are one weather and never paired.
    """
    size = min(sample.fields.sizes["realization"] for sample in candidates.values())
    names = [str(name) for name in arena.truth.fields.data_vars]
    scores: Table = {}
    ranks: Table = {}
    for name in names:
        rows = {
            owner: _variable_scores(arena, sample, name, owner, size)
            for owner, sample in candidates.items()
        }
        scores[name] = _entries(rows, arena.blocks)
        area, _ = arena.measure(name)
        truth = arena.cells(arena.truth.fields, name, "the truth")
        spread = truth - arena.cells(arena.expected, name, "the climatology")
        unit = float(np.sqrt(np.average(spread.var(axis=0, ddof=1), weights=area)))
        for score in ("mean", "sd", "q999"):
            for entry in scores[name][score].values():
                entry["relative"] = entry["value"] / unit
        if climatology is not None:
            _add_skill(arena, climatology, name, scores[name]["crps"])
        ranks[name] = {
            owner: mean_over_dates(
                rank_histogram(arena.cells(sample.fields, name, owner), truth, area), arena.weights
            )[0].tolist()
            for owner, sample in candidates.items()
        }
    joint = {owner: _joint_scores(arena, sample) for owner, sample in candidates.items()}
    spectra, errors = _spectra(arena, candidates)
    for name, entries in errors.items():
        scores[name]["spectrum"] = entries
    return {
        "scores": scores,
        "joint": _entries(joint, arena.blocks),
        "spectra": spectra,
        "ranks": ranks,
    }


def _variable_scores(
    arena: Arena, sample: Sample, name: str, owner: str, size: int
) -> dict[str, FloatArray]:
    ensemble = arena.cells(sample.fields, name, owner)
    truth = arena.cells(arena.truth.fields, name, "the truth")
    shift = arena.cells(arena.expected, name, "the climatology")
    area, _ = arena.measure(name)
    crps = np.average(fair_crps(ensemble, truth), axis=-1, weights=area)
    return map_errors(ensemble, truth, shift, area, arena.bands(name), arena.weights) | {
        "crps": mean_over_dates(crps, arena.weights),
        "spread": spread_over_error(ensemble, truth, area, arena.weights),
        "ranks": reliability_error(ensemble, truth, area, size, arena.weights),
    }


def _add_skill(arena: Arena, climatology: xr.Dataset, name: str, entries: Table) -> None:
    area, _ = arena.measure(name)
    truth = arena.cells(arena.truth.fields, name, "the truth")
    draws = arena.cells(climatology, name, "the climatology")
    years = None
    if "year" in climatology.coords:
        years = climatology["year"].transpose("realization", "time").values
    reference = float(np.average(fair_crps(draws, truth, years).mean(axis=0), weights=area))
    for entry in entries.values():
        entry["skill"] = 1 - entry["value"] / reference


def _joint_scores(arena: Arena, sample: Sample) -> dict[str, FloatArray]:
    """Correlations between variables per cell, and distances of whole fields."""
    modelled = _variables(sample.coefficients)
    everywhere = [name for name in modelled if np.isfinite(arena.truth.fields[name].values).all()]
    ensemble, truth = (_features(each.coefficients) for each in (sample, arena.truth))
    energies = Energies.of(ensemble, truth)
    rows = {
        "energy_score": energies.score(arena.weights),
        "energy_distance": energies.distance(arena.weights, arena.block),
    }
    if len(everywhere) > 1:
        ensembles, truths, shifts = (
            [arena.flat(fields[name]) for name in everywhere]
            for fields in (sample.fields, arena.truth.fields, arena.expected)
        )
        area = arena.area.values.ravel()
        errors = correlation_errors(ensembles, truths, shifts, area, arena.weights)
        rows = {"correlation": np.sqrt(np.square(errors).mean(axis=0))} | rows
    return rows


def _features(coefficients: xr.DataArray) -> FloatArray:
    """(..., time, feature), with Euclidean norm = rms of the scaled anomalies over the sphere."""
    values = coefficients.transpose(..., "time", "channel", "coefficient").values
    area = 4 * np.pi * coefficients.sizes["channel"]
    features: FloatArray = values.reshape(*values.shape[:-2], -1) / np.sqrt(area)
    return features


def _spectra(arena: Arena, candidates: Mapping[str, Sample]) -> tuple[Table, Table]:
    """Power per degree: curves by channel, and the entries of the score `spectrum` by variable.

    The components of a wind share the score of its kinetic energy, both parts together.
    """
    degree = arena.truth.coefficients["degree"].values
    truth = power(arena.truth.coefficients)
    curves: Table = {}
    errors: Table = {}
    powers = {owner: power(sample.coefficients) for owner, sample in candidates.items()}
    channels = [str(name) for name in arena.truth.coefficients["channel"].values]
    variables = _variables(arena.truth.coefficients)
    fields = [  # the two parts of a wind are named after both components (pipeline/sphere/stacked)
        channel if channel == variable else channel.rpartition(":")[0]
        for channel, variable in zip(channels, variables, strict=True)
    ]
    for c, name in enumerate(channels):
        held_out = mean_over_dates(truth[:, c], arena.weights)
        ratios: Table = {}
        for owner, theirs in powers.items():
            log = np.log(mean_over_dates(theirs[:, :, c].mean(axis=0), arena.weights) / held_out)
            width = arena.blocks.half_width(log[1:])
            ratios[owner] = {
                "value": np.exp(log[0]).tolist(),
                "low": np.exp(log[0] - width).tolist(),
                "high": np.exp(log[0] + width).tolist(),
            }
        curves[name] = {
            "degree": list(range(int(degree.max()) + 1)),
            "held_out": held_out[0].tolist(),
            "ratio": ratios,
        }
    for c, name in enumerate(variables):
        parts = [place for place, field in enumerate(fields) if field == fields[c]]
        ours = truth[:, parts].mean(axis=1)
        rows = {
            owner: {"spectrum": spectrum_error(p[:, :, parts].mean(axis=2), ours, arena.weights)}
            for owner, p in powers.items()
        }
        errors[name] = _entries(rows, arena.blocks)["spectrum"]
    return curves, errors


def _variables(coefficients: xr.DataArray) -> list[str]:
    """Names of the fields, in the order of the channels."""
    names = coefficients.coords.get("variable", coefficients["channel"])
    return [str(name) for name in names.values]


def power(coefficients: xr.DataArray) -> FloatArray:
    """Mean square per degree: (..., time, channel, degree)."""
    values = coefficients.transpose(..., "time", "channel", "coefficient").values
    result = mean_by_degree(np.square(values, dtype=np.float64))
    first = result[..., 0]
    first[first == 0.0] = 1.0  # winds have no degree 0: the ratio of nothing to nothing is one
    return result


def _entries(rows: Mapping[str, Mapping[str, FloatArray]], blocks: Blocks) -> Table:
    """Rows by candidate and score, turned to entries by score and candidate."""
    table: Table = {}
    floor = rows.get(FLOOR)
    for owner, by_score in rows.items():
        for score, row in by_score.items():
            entry: Table = asdict(Estimate.of(row, blocks)) | {"ratio": None, "excess": None}
            if floor is not None and owner != FLOOR:
                # An energy distance has either sign: its floor is 0, and no ratio has a meaning.
                if score != "energy_distance":
                    entry["ratio"] = asdict(Ratio.of(row, floor[score], blocks))
                difference = Estimate.of(row - floor[score], blocks)
                entry["excess"] = difference.value / max(difference.standard_error, 1e-300)
            table.setdefault(score, {})[owner] = entry
    return table
