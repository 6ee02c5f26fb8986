import numpy as np
import pytest

from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.fit import fit_m_block, shrunk_covariance
from pipeline.gaussian.moments import Moments

CHANNELS, LMAX, LAST = 2, 3, 6
LOW, SIZE = (LMAX + 1) ** 2, (LAST + 1) ** 2


@pytest.fixture(scope="module")
def moments() -> Moments:
    """Of fields all of whose coefficients covary."""
    generator = np.random.default_rng(0)
    mix = generator.standard_normal((CHANNELS * SIZE, CHANNELS * SIZE)) / 8
    white = generator.standard_normal((400, CHANNELS * SIZE))
    return Moments.of((white @ mix).reshape(400, CHANNELS, SIZE))


def dense(law) -> np.ndarray:
    """The covariance of an m-block law, (channel, coefficient, channel, coefficient)."""
    import torch

    eye = torch.eye(CHANNELS * SIZE, dtype=torch.float64).reshape(-1, CHANNELS, SIZE)
    root = law.unrotate(law.variance.sqrt() * eye).numpy().reshape(CHANNELS * SIZE, -1)
    return (root.T @ root).reshape(CHANNELS, SIZE, CHANNELS, SIZE)


def test_low_degrees_and_their_tail_have_the_covariance_of_the_m_block_law(moments):
    """Exactly: drawing is linear, so its covariance follows from unit inputs."""
    shrinkage = np.linspace(0.05, 0.4, LAST + 1)
    tail = GaussianTail.fit(moments, shrinkage, LMAX)
    expected = dense(fit_m_block(moments, shrinkage))
    low = expected[:, :LOW, :, :LOW].reshape(CHANNELS * LOW, -1)
    eye = np.eye(CHANNELS * LOW).reshape(-1, CHANNELS, LOW)
    white = np.eye(CHANNELS * (SIZE - LOW)).reshape(-1, CHANNELS, SIZE - LOW)
    forced = tail.draw(eye, np.zeros((len(eye), CHANNELS, SIZE - LOW))).reshape(len(eye), -1)
    free = tail.draw(np.zeros((len(white), CHANNELS, LOW)), white).reshape(len(white), -1)
    cross = (low @ forced).reshape(CHANNELS, LOW, CHANNELS, -1)
    np.testing.assert_allclose(cross, expected[:, :LOW, :, LOW:], atol=1e-10)
    own = (forced.T @ low @ forced + free.T @ free).reshape(CHANNELS, SIZE - LOW, CHANNELS, -1)
    np.testing.assert_allclose(own, expected[:, LOW:, :, LOW:], atol=1e-10)


def test_independent_degrees_have_a_white_tail(moments):
    """Shrunk all the way, with the channels of each degree uncorrelated and of variance one."""
    root = np.linalg.cholesky(moments.channel_covariance())
    white = moments.mixed(np.linalg.inv(root))
    tail = GaussianTail.fit(white, np.ones(LAST + 1), LMAX)
    generator = np.random.default_rng(1)
    x, noise = generator.standard_normal((2, 5, CHANNELS, SIZE))
    drawn = tail.draw(x[..., :LOW], noise[..., LOW:])
    assert drawn.shape == (5, CHANNELS, SIZE - LOW)
    again = tail.draw(np.zeros_like(x[..., :LOW]), noise[..., LOW:])
    np.testing.assert_allclose(drawn, again, atol=1e-10)
    covariance = shrunk_covariance(white, white.channel_covariance(), 2, 1.0)
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=1e-10)


def test_a_tail_that_follows_from_the_low_degrees_is_found():
    """Fields times a function of latitude: nothing is left to chance."""
    from pipeline.sphere.grid import RingGrid
    from pipeline.sphere.harmonics import plan

    grid = RingGrid.gaussian(16)
    generator = np.random.default_rng(2)
    low = generator.standard_normal((600, 1, LOW))
    fields = plan(grid, LMAX, "float64").synthesis(low)
    height = np.sin(np.deg2rad(grid.latitudes))[:, None]
    x = plan(grid, LAST, "float64").analysis(fields * (1 + 0.4 * height))
    tail = GaussianTail.fit(Moments.of(x), np.full(LAST + 1, 1e-9), LMAX)
    noise = generator.standard_normal((600, 1, SIZE - LOW))
    np.testing.assert_allclose(tail.draw(x[..., :LOW], noise), x[..., LOW:], atol=2e-4)
    assert x[..., LOW : LOW + 9].std() > 0.05


def test_a_stored_tail_is_the_same(moments):
    tail = GaussianTail.fit(moments, np.full(LAST + 1, 0.1), LMAX)
    again = GaussianTail.from_arrays(CHANNELS, LMAX, LAST, LAST, **tail.to_arrays())
    for part in ("regression", "root"):
        for ours, theirs in zip(getattr(tail, part), getattr(again, part), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_up_to_the_block_degree_a_tail_is_the_whole_one_and_beyond_it_white(moments):
    """Draws, and what functionals of them say: both laws know the degrees up to 5."""
    generator = np.random.default_rng(4)
    x = generator.standard_normal((500, CHANNELS, SIZE))
    x[..., 16:] += x[..., :1] + x[..., 6:7]
    share, size = np.full(LAST + 1, 0.1), 36
    part, cut = (
        GaussianTail.fit(each, share, LMAX)
        for each in (Moments.of(x, 5), Moments.of(x[..., :size], 5))
    )
    known, noise = x[:3, :, :LOW], generator.standard_normal((3, CHANNELS, SIZE - LOW))
    drawn = part.draw(known, noise)
    expected = cut.draw(known, noise[..., : size - LOW])
    np.testing.assert_allclose(drawn[..., : size - LOW], expected, atol=1e-12)
    np.testing.assert_array_equal(drawn[..., size - LOW :], noise[..., size - LOW :])
    rows = generator.standard_normal((2, CHANNELS, SIZE - LOW))
    of_x, of_noise = part.adjoint(rows)
    for row, a, b in zip(rows, of_x, of_noise, strict=True):
        said = (row * drawn).sum(axis=(1, 2))
        np.testing.assert_allclose(said, (a * known).sum((1, 2)) + (b * noise).sum((1, 2)))
    again = GaussianTail.from_arrays(CHANNELS, LMAX, LAST, 5, **part.to_arrays())
    np.testing.assert_array_equal(again.draw(known, noise), drawn)


def test_moments_up_to_a_degree_are_those_of_the_cut_fields():
    x = np.random.default_rng(3).standard_normal((20, CHANNELS, SIZE))
    cut, whole = Moments.of(x[..., :LOW]), Moments.of(x).up_to(LMAX)
    assert cut.lmax == whole.lmax
    for ours, theirs in zip(cut.blocks, whole.blocks, strict=True):
        np.testing.assert_allclose(ours, theirs)
    with pytest.raises(ValueError, match="kept up to degree 6; got 7"):
        Moments.of(x).up_to(7)


def test_a_channel_without_degree_0_has_a_tail_that_does_not_look_at_it():
    """As winds are."""
    generator = np.random.default_rng(3)
    x = generator.standard_normal((300, CHANNELS, SIZE)) @ (
        np.eye(SIZE) + 0.2 * generator.standard_normal((SIZE, SIZE))
    )
    x[:, 1, 0] = 0.0
    tail = GaussianTail.fit(Moments.of(x), np.zeros(LAST + 1), LMAX)
    known, noise = x[:5, :, :LOW], generator.standard_normal((5, CHANNELS, SIZE - LOW))
    drawn = tail.draw(known, noise)
    assert np.isfinite(drawn).all() and drawn.std() > 0.5
    other = known.copy()
    other[:, 1, 0] = 7.0
    np.testing.assert_array_equal(tail.draw(other, noise), drawn)
