"""What functionals see of a law, against what its draws are made of, number by number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.fields.pointwise.maps import Identity
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.baselines import Isotropic
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.moments import Moments
from pipeline.gaussian.posterior import GaussianPosterior
from pipeline.given.functionals import box, cells, joined, low_degrees, points
from pipeline.given.seen import Seen, Summary, synthesis_adjoint
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.stacked import synthesis

GRID, LMAX, LAST = RingGrid.gaussian(10), 4, 6
GENERATOR = np.random.default_rng(5)


def normals(variables: int, last: int, pairs: tuple[tuple[int, int], ...] = ()) -> Normals:
    shape = (variables, *GRID.shape)
    return Normals(
        grid=GRID,
        channels=tuple("abc"[:variables]),
        transforms=(Identity(),) * variables,
        climatology=np.zeros((1, *shape)),
        scale=GENERATOR.uniform(0.5, 2.0, shape),
        mask=np.zeros(shape, bool),
        lmax=LMAX,
        factor=np.tril(GENERATOR.uniform(0.1, 1.0, (last + 1, variables, variables))),
        remainder=GENERATOR.uniform(0.1, 0.3, shape),
        pairs=pairs,
    )


def tail_of(variables: int) -> GaussianTail:
    x = GENERATOR.standard_normal((200, variables, (LAST + 1) ** 2))
    x[..., (LMAX + 1) ** 2 :] += 0.5 * x[..., : x.shape[-1] - (LMAX + 1) ** 2]
    return GaussianTail.fit(Moments.of(x), np.full(LAST + 1, 0.1), LMAX)


def observed() -> dict[str, object]:
    latitude, longitude = np.array([-90.0, 12.0, 47.3]), np.array([0.0, -170.0, 359.5])
    return {
        "points": points(GRID, latitude, longitude, np.array([0, 1, 0])),
        "boxes": joined([box(GRID, (35, 60, -10, 40), 1), box(GRID, (-90, 90, 0, 360), 0)]),
        "holes": cells(GRID, np.flatnonzero(GENERATOR.random(GRID.size) < 0.5), 1),
        "coarse fields": joined([low_degrees(GRID, 2, 0), low_degrees(GRID, 3, 1)]),
    }


def law_of_the_fields(known: Normals, tail: GaussianTail | None, s: np.ndarray) -> np.ndarray:
    """Covariance of scaled anomalies, all variables and cells, by pushing unit noise through."""
    channels, low = len(known.channels), (known.lmax + 1) ** 2
    high, area = (known.tail + 1) ** 2 - low, known.grid.size
    unit = np.eye(channels * (low + high + area))
    a, b = channels * low, channels * (low + high)
    x = np.sqrt(s) * unit[:, :a].reshape(-1, channels, low)
    if tail is not None:
        x = np.concatenate([x, tail.draw(x, unit[:, a:b].reshape(-1, channels, high))], axis=-1)
    fields = known.synthesis(x)
    fields += known.remainder_of(unit[:, b:].reshape(-1, channels, *known.grid.shape))
    flat = fields.reshape(len(unit), -1)
    return flat.T @ flat


def posterior_of_the_fields(
    whole: np.ndarray, rows: np.ndarray, error: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kriging of the scaled anomalies by dense algebra."""
    gain = whole @ rows.T @ np.linalg.inv(rows @ whole @ rows.T + np.diag(error))
    return gain @ values, whole - gain @ rows @ whole


def test_what_is_seen_belongs_to_a_time_where_the_scale_has_one():
    functionals = next(iter(observed().values()))
    usual = normals(2, LMAX)
    known = replace(usual, log_scale=np.full((4, 2, *GRID.shape), 0.1))
    with pytest.raises(ValueError, match=r"take known\.at\(row\)"):
        Seen.of(known, None, functionals, np.ones(len(functionals)))
    row = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    plain, changed = (
        Seen.of(each, None, functionals, np.ones(len(functionals))).operator
        for each in (usual, known.at(row))
    )
    np.testing.assert_allclose(changed, np.exp(0.1) * plain, rtol=1e-12)


@pytest.mark.parametrize("name", observed())
@pytest.mark.parametrize("last", [LMAX, LAST], ids=["no tail", "a tail"])
def test_completed_draws_of_the_fields_have_the_moments_of_kriging(name, last):
    """Mean and covariance of fields on the grid, x, tail and remainder together, to 1e-12."""
    known, tail = normals(2, last), tail_of(2) if last > LMAX else None
    functionals = observed()[name]
    seen = Seen.of(known, tail, functionals, GENERATOR.uniform(0.01, 0.1, len(functionals)))
    values = GENERATOR.standard_normal(len(functionals))
    s = GENERATOR.uniform(0.3, 2.0, (2, (LMAX + 1) ** 2))
    summary = Summary.of(seen)
    rows, _ = summary.values(values)
    law = GaussianPosterior(
        Isotropic(variance=s), torch.from_numpy(summary.operator), torch.from_numpy(summary.noise)
    )

    low, high = (LMAX + 1) ** 2, (last + 1) ** 2 - (LMAX + 1) ** 2
    sizes = [2 * low, len(rows), 2 * high, 2 * GRID.size, len(values)]
    unit = np.eye(sum(sizes) + 1)[:, 1:]
    parts = np.split(unit, np.cumsum(sizes)[:-1], axis=1)
    x = law.draw(
        torch.from_numpy(parts[0].reshape(-1, 2, low)),
        torch.from_numpy(parts[1]),
        torch.from_numpy(rows),
    ).numpy()
    white = parts[2].reshape(-1, 2, high) if tail else None
    noise = known.remainder_of(parts[3].reshape(-1, 2, *GRID.shape))
    white, remainder = seen.complete(values, x, white, noise, parts[4])
    if tail is not None:
        x = np.concatenate([x, tail.draw(x, white)], axis=-1)
    fields = (known.synthesis(x) + remainder).reshape(len(unit), -1)
    response = fields[1:] - fields[0]

    every = np.eye(2 * GRID.size).reshape(-1, 2, *GRID.shape)
    dense = seen.functionals(every).T
    whole = law_of_the_fields(known, tail, s)
    mean, covariance = posterior_of_the_fields(whole, dense, seen.error, values)
    np.testing.assert_allclose(fields[0], mean, atol=1e-12)
    np.testing.assert_allclose(response.T @ response, covariance, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_adjoint_of_synthesis_is_its_transposed_matrix(parts):
    pairs = ((0, 1),) if parts == 2 else ()
    coefficients = GENERATOR.standard_normal((parts, (LAST + 1) ** 2))
    if parts == 2:
        coefficients[:, 0] = 0.0
    maps = GENERATOR.standard_normal((parts, *GRID.shape))
    there = (synthesis(GRID, pairs, coefficients) * maps).sum()
    back = (synthesis_adjoint(GRID, LAST, maps[None])[0] * coefficients).sum()
    assert there == pytest.approx(back, rel=1e-12)


def test_a_wind_is_observed_through_both_of_its_potentials():
    known = normals(3, LMAX, pairs=((0, 2),))
    functionals = points(GRID, np.array([10.0]), np.array([20.0]), np.array([2]))
    seen = Seen.of(known, None, functionals, np.ones(1))
    x = GENERATOR.standard_normal((4, 3, (LMAX + 1) ** 2))
    there = functionals(known.scale * known.synthesis(x))[:, 0]
    np.testing.assert_allclose(np.einsum("nck,ck->n", x, seen.operator[0]), there, rtol=1e-10)


def test_summarised_observations_have_the_evidence_of_all():
    known = normals(2, LMAX)
    functionals = joined([cells(GRID, np.arange(GRID.size), place) for place in (0, 1)])
    seen = Seen.of(known, None, functionals, np.full(len(functionals), 0.05))
    values = GENERATOR.standard_normal((3, len(functionals)))
    summary = Summary.of(seen)
    rows, nats = summary.values(values)
    assert rows.shape[1] < values.shape[1]
    law = Isotropic(variance=np.ones((2, (LMAX + 1) ** 2)))

    def evidence(operator, noise, at):
        there = GaussianPosterior(law, torch.from_numpy(operator), torch.from_numpy(noise))
        return there.log_evidence(torch.from_numpy(at)).numpy()

    whole = evidence(seen.operator, seen.noise, values)
    part = evidence(summary.operator, summary.noise, rows)
    np.testing.assert_allclose(part + nats, whole, rtol=1e-9)
