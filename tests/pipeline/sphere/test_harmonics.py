"""Analysis and synthesis against independent transforms and the laws of an orthonormal basis."""

import copy
import pickle

import ducc0
import healpy
import numpy as np
import pytest
from scipy.special import sph_harm_y

from pipeline.sphere.coefficients import degrees, from_complex, orders, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import Harmonics, plan

IRREGULAR = RingGrid.from_coordinates(
    np.linspace(-88.0, 85.0, 30) + 1.5 * np.sin(np.arange(30)), np.arange(64) * 5.625 + 1.0
)
GRIDS = [
    (RingGrid.gaussian(32), 31),
    (RingGrid.gaussian(32), 21),
    (RingGrid.gaussian(33, 70), 32),
    (RingGrid.latlon(33), 31),
    (RingGrid.latlon(32, poles=False), 31),
    (
        RingGrid.from_coordinates(
            -np.asarray(RingGrid.gaussian(20).latitudes), np.arange(48) * 7.5 - 180
        ),
        19,
    ),
    (IRREGULAR, 20),
    (RingGrid.healpix(1), 2),
    (RingGrid.healpix(8), 16),
    (RingGrid.healpix(6), 9),
    (RingGrid.healpix(16, "nested"), 32),
]
NAMES = [f"{grid.describe()} {lmax}".replace(" ", "-") for grid, lmax in GRIDS]


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def basis(grid, lmax):
    """R_lm on the grid, from scipy's complex harmonics."""
    latitude, longitude = np.deg2rad(grid.coordinates)
    shape = -1, *[1] * latitude.ndim
    degree, order = degrees(lmax).reshape(shape), orders(lmax).reshape(shape)
    value = sph_harm_y(degree, np.abs(order), np.pi / 2 - latitude, longitude)
    return np.where(order < 0, -value.imag, value.real) * np.where(order == 0, 1.0, np.sqrt(2.0))


def test_degree_major_order():
    assert degrees(2).tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert orders(2).tolist() == [0, -1, 0, 1, -2, -1, 0, 1, 2]


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
def test_synthesis_of_unit_coefficients_is_the_basis_of_scipy(grid, lmax):
    n = (lmax + 1) ** 2
    fields = Harmonics(grid, lmax, np.float64).synthesis(np.eye(n))
    np.testing.assert_allclose(fields, basis(grid, lmax), atol=2e-12)


def test_gram_matrix_by_gauss_legendre_is_the_identity():
    grid, lmax = RingGrid.gaussian(22), 21
    fields = Harmonics(grid, lmax, np.float64).synthesis(np.eye((lmax + 1) ** 2))
    flat = fields.reshape(len(fields), -1)
    gram = (flat * grid.area.ravel()) @ flat.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-11)])
def test_analysis_undoes_synthesis(grid, lmax, dtype, tolerance, generator):
    transform = plan(grid, lmax, np.dtype(dtype).name)
    coefficients = generator.standard_normal((2, 3, (lmax + 1) ** 2)).astype(dtype)
    fields = transform.synthesis(coefficients)
    assert fields.shape == (2, 3, *grid.shape)
    assert fields.dtype == dtype
    back = transform.analysis(fields)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, coefficients, atol=tolerance)


def test_blocks_do_not_change_the_result(generator, monkeypatch):
    transform = Harmonics(RingGrid.gaussian(16), 15, np.float64)
    fields = generator.standard_normal((100, 16, 32))
    whole = transform.analysis(fields)
    monkeypatch.setattr("pipeline.sphere.harmonics.BLOCK_BYTES", 1)
    np.testing.assert_allclose(transform.analysis(fields), whole, atol=1e-14)
    np.testing.assert_allclose(
        transform.synthesis(whole),
        np.concatenate([transform.synthesis(whole[i : i + 7]) for i in range(0, 100, 7)]),
        atol=1e-13,
    )


def test_parseval(generator):
    grid, lmax = RingGrid.gaussian(32), 31
    coefficients = generator.standard_normal((lmax + 1) ** 2)
    field = plan(grid, lmax, "float64").synthesis(coefficients)
    np.testing.assert_allclose((field**2 * grid.area).sum(), (coefficients**2).sum(), rtol=1e-12)


def test_complex_and_real_coefficients_carry_the_same(generator):
    lmax = 12
    coefficients = generator.standard_normal((3, (lmax + 1) ** 2))
    alm = to_complex(coefficients)
    np.testing.assert_allclose(from_complex(alm), coefficients, atol=1e-15)
    power = np.abs(alm) ** 2
    degree, order = healpy.Alm.getlm(lmax)
    total = np.where(order > 0, 2.0, 1.0) * power
    for one in range(lmax + 1):
        np.testing.assert_allclose(
            total[:, degree == one].sum(1), (coefficients[:, degrees(lmax) == one] ** 2).sum(1)
        )


def test_isotropic_coefficients_have_half_their_power_in_each_part(generator):
    samples, lmax = 4000, 4
    alm = to_complex(generator.standard_normal((samples, (lmax + 1) ** 2)))
    order = healpy.Alm.getlm(lmax)[1]
    for part, expected in (
        (alm[:, order == 0].real, 1.0),
        (alm[:, order > 0].real, 0.5),
        (alm[:, order > 0].imag, 0.5),
    ):
        error = expected * np.sqrt(2.0 / samples)
        np.testing.assert_allclose(part.var(axis=0), expected, atol=5.0 * error)


def test_single_fields_agree_with_ducc0(generator):
    grid, lmax = RingGrid.gaussian(24), 23
    coefficients = generator.standard_normal((lmax + 1) ** 2)
    expected = ducc0.sht.synthesis_2d(
        alm=to_complex(coefficients)[None], spin=0, lmax=lmax, geometry="GL", ntheta=24, nphi=48
    )[0]
    field = plan(grid, lmax, "float64").synthesis(coefficients)
    np.testing.assert_allclose(field[::-1], expected, atol=1e-11)


def test_healpix_agrees_with_healpy_and_inverts(generator):
    grid, lmax = RingGrid.healpix(8), 16
    coefficients = generator.standard_normal((2, (lmax + 1) ** 2))
    transform = Harmonics(grid, lmax, np.float64)
    fields = transform.synthesis(coefficients)
    expected = healpy.alm2map(np.ascontiguousarray(to_complex(coefficients[0])), 8, lmax=lmax)
    np.testing.assert_allclose(fields[0], expected, atol=1e-11)
    np.testing.assert_allclose(transform.analysis(fields), coefficients, atol=1e-12)


def test_nested_cells_are_those_of_healpy(generator):
    ring, nested = (plan(RingGrid.healpix(8, order), 16, "float64") for order in ("ring", "nested"))
    coefficients = generator.standard_normal((2, 17**2))
    fields = nested.synthesis(coefficients)
    expected = healpy.reorder(ring.synthesis(coefficients), r2n=True)
    np.testing.assert_array_equal(fields, expected)
    np.testing.assert_allclose(nested.analysis(fields), coefficients, atol=1e-12)
    noise = generator.standard_normal(ring.grid.shape)
    np.testing.assert_allclose(
        nested.synthesis_adjoint(healpy.reorder(noise, r2n=True)),
        ring.synthesis_adjoint(noise),
        atol=1e-10,
    )


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
def test_adjoints_are_transposed_matrices(grid, lmax, generator):
    transform = plan(grid, lmax, "float64")
    field = generator.standard_normal(grid.shape)
    coefficients = generator.standard_normal((lmax + 1) ** 2)
    for ours, expected in (
        (
            transform.analysis_adjoint(coefficients) * field,
            transform.analysis(field) * coefficients,
        ),
        (
            transform.synthesis_adjoint(field) * coefficients,
            transform.synthesis(coefficients) * field,
        ),
    ):
        np.testing.assert_allclose(ours.sum(), expected.sum(), atol=1e-12 * np.abs(expected).sum())


@pytest.mark.parametrize("nside", [1, 2, 5, 8])
def test_analysis_on_healpix_is_least_squares_over_all_cells(nside, generator):
    grid, lmax = RingGrid.healpix(nside), 2 * nside
    noise = generator.standard_normal(grid.shape)
    expected = np.linalg.lstsq(basis(grid, lmax).T, noise, rcond=None)[0]
    np.testing.assert_allclose(plan(grid, lmax, "float64").analysis(noise), expected, atol=1e-12)


def test_copies_and_pickles_of_a_plan_are_found_again():
    transform = plan(RingGrid.gaussian(32), 31)
    assert copy.deepcopy(transform) is transform
    assert len(pickle.dumps(transform)) < 5_000
    assert pickle.loads(pickle.dumps(transform)) is transform


def test_on_gauss_legendre_synthesis_is_the_adjoint_of_analysis(generator):
    grid, lmax = RingGrid.gaussian(12), 11
    transform = plan(grid, lmax, "float64")
    field = generator.standard_normal(grid.shape)
    coefficients = generator.standard_normal((lmax + 1) ** 2)
    np.testing.assert_allclose(
        transform.analysis(field) @ coefficients,
        (field * grid.area * transform.synthesis(coefficients)).sum(),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("grid", "lmax", "message"),
    [
        (RingGrid.gaussian(16), 16, "degrees 0 to 15"),
        (RingGrid.latlon(17), 16, "degrees 0 to 15"),
        (RingGrid.gaussian(16, 16), 15, "degrees 0 to 7"),
        (RingGrid.healpix(4), 9, "degrees 0 to 8"),
        (
            RingGrid.from_coordinates(np.linspace(-80, 80, 81), np.arange(180) * 2.0),
            79,
            "undetermined",
        ),
    ],
)
def test_what_a_grid_does_not_determine_is_refused(grid, lmax, message):
    with pytest.raises(ValueError, match=message):
        Harmonics(grid, lmax)


def test_wrong_shapes_are_refused_with_both_shapes():
    transform = plan(RingGrid.gaussian(16), 15)
    with pytest.raises(ValueError, match=r"\(16, 32\).*\(3, 32, 16\)"):
        transform.analysis(np.zeros((3, 32, 16)))
    with pytest.raises(ValueError, match=r"\(256,\).*\(3, 255\)"):
        transform.synthesis(np.zeros((3, 255)))
    with pytest.raises(ValueError, match="float16"):
        Harmonics(RingGrid.gaussian(16), 15, np.float16)
    with pytest.raises(ValueError, match="255"):
        to_complex(np.zeros(255))
