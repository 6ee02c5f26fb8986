"""Transforms of tangent fields: known winds, independent libraries and the laws of the basis."""

import ducc0
import healpy
import numpy as np
import pytest

from pipeline.sphere.coefficients import degrees, orders, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.vector_harmonics import VectorHarmonics, vector_plan

GRIDS = [
    (RingGrid.gaussian(32), 31),
    (RingGrid.gaussian(33, 70), 32),
    (RingGrid.gaussian(24), 11),
    (RingGrid.latlon(33), 31),
    (RingGrid.latlon(34, 70), 32),
    (RingGrid.latlon(32, poles=False), 31),
    (
        RingGrid.from_coordinates(
            -np.asarray(RingGrid.gaussian(20).latitudes), np.arange(48) * 7.5 - 180
        ),
        19,
    ),
    (
        RingGrid.from_coordinates(
            np.linspace(-88.0, 85.0, 30) + 1.5 * np.sin(np.arange(30)), np.arange(64) * 5.625 + 1.0
        ),
        20,
    ),
]
NAMES = [f"{grid.describe()} {lmax}".replace(" ", "-") for grid, lmax in GRIDS]


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def draw(generator, lmax, *batch):
    """Spheroidal and toroidal coefficients, white from degree 1 on."""
    parts = generator.standard_normal((2, *batch, (lmax + 1) ** 2))
    parts[..., 0] = 0.0
    return parts[0], parts[1]


def basis(grid, lmax):
    """(component, part and coefficient, point): winds of unit coefficients of degree 1 on."""
    n = (lmax + 1) ** 2
    unit, zero = np.eye(n)[1:], np.zeros((n - 1, n))
    transform = vector_plan(grid, lmax, "float64")
    winds = transform.synthesis(np.concatenate([unit, zero]), np.concatenate([zero, unit]))
    return np.stack(winds).reshape(2, 2 * (n - 1), -1)


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_analysis_undoes_synthesis(grid, lmax, dtype, tolerance, generator):
    transform = vector_plan(grid, lmax, np.dtype(dtype).name)
    parts = [part.astype(dtype) for part in draw(generator, lmax, 2, 3)]
    winds = transform.synthesis(*parts)
    for wind in winds:
        assert wind.shape == (2, 3, *grid.shape) and wind.dtype == dtype
    for ours, expected in zip(transform.analysis(*winds), parts, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-8)])
def test_each_part_of_a_healpix_field_comes_back(dtype, tolerance, generator):
    transform = VectorHarmonics(RingGrid.healpix(8), 16, dtype)
    parts = draw(generator, 16, 2)
    for ours, expected in zip(transform.analysis(*transform.synthesis(*parts)), parts, strict=True):
        np.testing.assert_allclose(ours, expected, atol=tolerance)


def test_parseval_and_the_basis_is_orthonormal():
    grid, lmax = RingGrid.gaussian(12), 9
    winds = basis(grid, lmax)
    gram = np.einsum("cip,cjp,p->ij", winds, winds, grid.area.ravel())
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_do_not_change_the_result(dtype, generator, monkeypatch):
    transform = VectorHarmonics(RingGrid.gaussian(16), 15, dtype)
    winds = generator.standard_normal((2, 100, 16, 32)).astype(dtype)
    whole = transform.analysis(*winds)
    monkeypatch.setattr("pipeline.sphere.harmonics.BLOCK_BYTES", 1)
    for ours, expected in zip(transform.analysis(*winds), whole, strict=True):
        np.testing.assert_allclose(ours, expected, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("grid", [RingGrid.latlon(19), RingGrid.gaussian(18), RingGrid.healpix(8)])
def test_solid_body_rotation_is_one_toroidal_coefficient(grid):
    """u = cos(latitude) has the stream function -sin(latitude)."""
    lmax = 5
    latitude = np.deg2rad(np.repeat(grid.latitudes, grid.points)).reshape(grid.shape)
    winds = np.cos(latitude), np.zeros(grid.shape)
    spheroidal, toroidal = VectorHarmonics(grid, lmax, np.float64).analysis(*winds)
    expected = np.zeros((lmax + 1) ** 2)
    expected[2] = -np.sqrt(2.0) * np.sqrt(4.0 * np.pi / 3.0)
    np.testing.assert_allclose(toroidal, expected, atol=1e-10)
    np.testing.assert_allclose(spheroidal, 0.0, atol=1e-10)


@pytest.mark.parametrize(
    "grid",
    [RingGrid.latlon(25), RingGrid.gaussian(24), GRIDS[-1][0]],
    ids=["poles", "gauss", "odd"],
)
def test_a_gradient_is_spheroidal_and_a_rotation_toroidal(grid):
    """Of x y + z^2 - y and its known derivatives, with the scalar transform for its a_lm."""
    lmax = 6
    latitude = np.deg2rad(np.asarray(grid.latitudes))[:, None]
    longitude = np.deg2rad(
        grid.first_longitudes[0] + 360.0 / grid.points[0] * np.arange(grid.points[0])
    )
    cos, sin, c, s = np.cos(latitude), np.sin(latitude), np.cos(longitude), np.sin(longitude)
    scalar = cos**2 * c * s + sin**2 - cos * s
    eastward = cos * (c**2 - s**2) - c + 0 * sin
    northward = -2 * cos * sin * c * s + 2 * sin * cos + sin * s
    coefficients = plan(grid, lmax, "float64").analysis(scalar)
    slope = np.sqrt(degrees(lmax) * (degrees(lmax) + 1.0)) * coefficients
    transform = vector_plan(grid, lmax, "float64")
    spheroidal, toroidal = transform.analysis(eastward, northward)
    np.testing.assert_allclose(spheroidal, slope, atol=1e-12)
    np.testing.assert_allclose(toroidal, 0.0, atol=1e-12)
    spheroidal, toroidal = transform.analysis(-northward, eastward)  # turned by k x
    np.testing.assert_allclose(spheroidal, 0.0, atol=1e-12)
    np.testing.assert_allclose(toroidal, slope, atol=1e-12)


def test_winds_are_those_of_healpy(generator):
    nside, lmax = 8, 16
    spheroidal, toroidal = draw(generator, lmax)
    alm = [np.ascontiguousarray(to_complex(part)) for part in (spheroidal, toroidal)]
    southward, eastward = healpy.alm2map_spin(alm, nside, 1, lmax)
    transform = VectorHarmonics(RingGrid.healpix(nside), lmax, np.float64)
    ours = transform.synthesis(spheroidal, toroidal)
    np.testing.assert_allclose(ours[0], eastward, atol=1e-11)
    np.testing.assert_allclose(ours[1], -southward, atol=1e-11)
    nested = VectorHarmonics(RingGrid.healpix(nside, "nested"), lmax, np.float64)
    u, v = nested.synthesis(spheroidal, toroidal)
    np.testing.assert_array_equal(u, healpy.reorder(ours[0], r2n=True))
    for back, part in zip(nested.analysis(u, v), (spheroidal, toroidal), strict=True):
        np.testing.assert_allclose(back, part, atol=1e-7)


@pytest.mark.parametrize(
    ("geometry", "grid"), [("GL", RingGrid.gaussian(24)), ("CC", RingGrid.latlon(25))]
)
def test_winds_are_those_of_ducc0(geometry, grid, generator):
    lmax, (nlat, nlon) = 23, grid.shape
    spheroidal, toroidal = draw(generator, lmax)
    southward, eastward = ducc0.sht.synthesis_2d(
        alm=to_complex(np.stack([spheroidal, toroidal])),
        spin=1,
        lmax=lmax,
        geometry=geometry,
        ntheta=nlat,
        nphi=nlon,
    )
    ours = vector_plan(grid, lmax, "float64").synthesis(spheroidal, toroidal)
    np.testing.assert_allclose(ours[0][::-1], eastward, atol=1e-11)
    np.testing.assert_allclose(ours[1][::-1], -southward, atol=1e-11)


def test_isotropic_noise_has_one_covariance_everywhere_and_at_the_poles():
    """The sum of c_l B B^T over the basis is sum (2l + 1) (c_l + d_l) / 8 pi times the identity."""
    grid, lmax = RingGrid.latlon(21, 44), 9
    degree = degrees(lmax)[1:]
    spheroidal, toroidal = (1.0 + degree) ** -2.0, 3.0 * (2.0 + degree) ** -1.5
    variance = np.concatenate([spheroidal, toroidal])
    winds = basis(grid, lmax)
    covariance = np.einsum("cip,dip,i->pcd", winds, winds, variance)
    expected = variance.sum() / (8.0 * np.pi) * np.eye(2)
    np.testing.assert_allclose(covariance, np.broadcast_to(expected, covariance.shape), atol=1e-12)


def test_noise_that_is_not_isotropic_does_not_pass_for_it():
    grid, lmax = RingGrid.latlon(21, 44), 9
    variance = np.tile(1.0 + (orders(lmax)[1:] == 0), 2)
    winds = basis(grid, lmax)
    covariance = np.einsum("cip,dip,i->pcd", winds, winds, variance)
    assert np.ptp(covariance[:, 0, 0]) > 0.1


def test_on_gauss_legendre_synthesis_is_the_adjoint_of_analysis(generator):
    grid, lmax = RingGrid.gaussian(12), 11
    transform = vector_plan(grid, lmax, "float64")
    winds, parts = generator.standard_normal((2, *grid.shape)), draw(generator, lmax)
    np.testing.assert_allclose(
        sum((a * b).sum() for a, b in zip(transform.analysis(*winds), parts, strict=True)),
        sum(
            (a * b * grid.area).sum()
            for a, b in zip(winds, transform.synthesis(*parts), strict=True)
        ),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("grid", "lmax", "message"),
    [
        (RingGrid.gaussian(16), 16, "degrees 0 to 15"),
        (RingGrid.latlon(17), 16, "degrees 0 to 15"),
        (RingGrid.healpix(4), 9, "1 to 8"),
        (RingGrid.gaussian(16), 0, "degrees from 1 on"),
        (
            RingGrid.from_coordinates(np.linspace(-80, 80, 81), np.arange(180) * 2.0),
            79,
            "undetermined",
        ),
    ],
)
def test_what_a_grid_does_not_determine_is_refused(grid, lmax, message):
    with pytest.raises(ValueError, match=message):
        VectorHarmonics(grid, lmax)


def test_what_is_no_tangent_field_is_refused():
    transform = vector_plan(RingGrid.gaussian(16), 15)
    zero = np.zeros((3, 256))
    with pytest.raises(
        ValueError, match=r"spheroidal coefficients of degree 0 must be zero; got 2"
    ):
        transform.synthesis(zero + 2.0, zero)
    with pytest.raises(ValueError, match=r"\(3, 256\).*\(256,\)"):
        transform.synthesis(zero, zero[0])
    with pytest.raises(ValueError, match=r"northward.*\(16, 32\).*\(32, 16\)"):
        transform.analysis(np.zeros((16, 32)), np.zeros((32, 16)))
    with pytest.raises(ValueError, match="float16"):
        VectorHarmonics(RingGrid.gaussian(16), 15, np.float16)
