import numpy as np
import torch

from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.sampler import Sampler
from tests.pipeline.closed_forms import TwoPoint


def test_noise_depends_on_its_address_alone():
    address = NoiseAddress(seed=3, realization=5, time="2002-01-15T12:00:00")
    white = address.white(2, ["zg500", "pr"], lmax=6)
    again = address.white(2, ["pr"], lmax=6)
    np.testing.assert_array_equal(white[1], again[0])
    for other in (
        NoiseAddress(seed=4, realization=5, time="2002-01-15T12:00:00"),
        NoiseAddress(seed=3, realization=6, time="2002-01-15T12:00:00"),
        NoiseAddress(seed=3, realization=5, time="2002-01-16T12:00:00"),
    ):
        assert not np.array_equal(other.white(2, ["pr"], lmax=6), again)
    assert not np.array_equal(address.white(1, ["pr"], lmax=6), again)


def test_the_numbers_at_an_address_never_change():
    """Published ensembles are extended with the noise that they began with."""
    white = NoiseAddress(seed=0, realization=1, time="2000-01-01").white(2, ["t"], lmax=1)
    known = [[0.6164352893829346, 0.4605841040611267, 0.5176885724067688, -0.20014899969100952]]
    np.testing.assert_array_equal(white, np.float32(known))


def test_a_larger_lmax_extends_the_noise():
    """T-16: the low degrees see the same numbers."""
    address = NoiseAddress(seed=0, realization=0, time="2000-01-01")
    low, high = (address.white(0, ["t"], lmax) for lmax in (5, 11))
    np.testing.assert_array_equal(high[:, :36], low)


def test_a_larger_lmax_leaves_the_low_degrees_of_a_draw_as_they_are():
    """T-16: the two-point law at lmax 3 and 6, bit for bit."""
    addresses = [NoiseAddress(seed=0, realization=r, time="2000-01-01") for r in range(5)]

    def drawn(lmax: int) -> torch.Tensor:
        def noise(step: int) -> torch.Tensor:
            white = [address.white(step, ["t"], lmax) for address in addresses]
            return torch.from_numpy(np.stack(white))

        law = TwoPoint(2.0, coefficients=(lmax + 1) ** 2)
        return Sampler(evaluations=8)(law, noise, torch.zeros(5, 1))

    low, high = drawn(3), drawn(6)
    assert high.dtype == torch.float32
    np.testing.assert_array_equal(high[..., :16], low)


def test_noise_is_white():
    """Four standard errors of mean and variance over 40 realizations of 1024 numbers."""
    draws = np.stack(
        [NoiseAddress(seed=0, realization=r, time="").white(0, ["t"], 31) for r in range(40)]
    )
    assert abs(draws.mean()) < 4 / draws.size**0.5
    assert abs(draws.var() - 1) < 4 * (2 / draws.size) ** 0.5
