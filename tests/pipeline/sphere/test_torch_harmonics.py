"""Differentiable transforms: both ways they run agree with the numpy ones and with calculus."""

import copy
import pickle

import numpy as np
import pytest
import torch

from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.torch_harmonics import TorchHarmonics, _grouped

GRIDS = [
    (RingGrid.gaussian(32), 31),
    (RingGrid.gaussian(33, 70), 25),
    (RingGrid.gaussian(2), 0),
    (RingGrid.latlon(33), 31),
    (RingGrid.latlon(32, poles=False), 31),
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


@pytest.fixture(params=["numpy", "products"])
def way(request, monkeypatch):
    """What runs on the CPU and what runs on other devices, both on the CPU."""
    if request.param == "products":

        def products(self):
            return _grouped(self.grid, self.lmax, self.place.dtype, self.place.device)

        monkeypatch.setattr(TorchHarmonics, "_maps", products)


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
def test_torch_and_numpy_transform_alike(grid, lmax, way, generator):
    numpy_, torch_ = plan(grid, lmax, "float64"), TorchHarmonics(grid, lmax).double()
    fields = generator.standard_normal((2, 3, *grid.shape))
    coefficients = numpy_.analysis(fields)
    ours = torch_.analysis(torch.from_numpy(fields))
    np.testing.assert_allclose(ours.numpy(), coefficients, atol=1e-12)
    back = torch_.synthesis(torch.from_numpy(coefficients))
    np.testing.assert_allclose(back.numpy(), numpy_.synthesis(coefficients), atol=1e-11)


@pytest.mark.parametrize(("grid", "lmax"), GRIDS, ids=NAMES)
def test_gradients_are_those_of_the_numpy_adjoints(grid, lmax, way, generator):
    numpy_, torch_ = plan(grid, lmax, "float64"), TorchHarmonics(grid, lmax).double()
    fields = torch.from_numpy(generator.standard_normal((4, *grid.shape))).requires_grad_()
    coefficients = torch.from_numpy(generator.standard_normal((4, (lmax + 1) ** 2)))
    coefficients.requires_grad_()
    torch_.analysis(fields).backward(coefficients)
    torch_.synthesis(coefficients).backward(fields)
    for ours, expected in (
        (fields.grad, numpy_.analysis_adjoint(coefficients.detach().numpy())),
        (coefficients.grad, numpy_.synthesis_adjoint(fields.detach().numpy())),
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-11)


@pytest.mark.parametrize(
    ("grid", "lmax"),
    [
        (RingGrid.gaussian(6), 5),
        (RingGrid.latlon(7, 12), 5),
        (RingGrid.from_coordinates(np.array([70, 40, 5, -33, -80]), 1.0 + 36 * np.arange(10)), 3),
    ],
    ids=["gaussian", "latlon", "irregular"],
)
def test_gradients_are_right(grid, lmax, way):
    transform = TorchHarmonics(grid, lmax).double()
    fields = torch.randn(2, *grid.shape, dtype=torch.float64, requires_grad=True)
    coefficients = torch.randn(2, (lmax + 1) ** 2, dtype=torch.float64, requires_grad=True)
    for map_, x in ((transform.analysis, fields), (transform.synthesis, coefficients)):
        assert torch.autograd.gradcheck(map_, (x,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(map_, (x,))


def test_torch_transforms_keep_full_precision(way):
    transform = TorchHarmonics(RingGrid.gaussian(16), 15)
    coefficients = torch.randn(4, 256)
    low = coefficients.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        back = transform.analysis(transform.synthesis(low))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, low.float(), atol=1e-5, rtol=0.0)
    back.sum().backward()
    assert low.grad is not None and low.grad.dtype == torch.bfloat16
    low_tables = transform.bfloat16()
    torch.testing.assert_close(
        low_tables.analysis(low_tables.synthesis(coefficients)), coefficients, atol=1e-5, rtol=0.0
    )
    doubled = transform.double()
    exact = torch.randn(4, 256, dtype=torch.float64)
    torch.testing.assert_close(
        doubled.analysis(doubled.synthesis(exact)), exact, atol=1e-12, rtol=0.0
    )
    assert not transform.state_dict()


@pytest.mark.parametrize("ordering", ["ring", "nested"])
def test_gradients_on_healpix_are_right(ordering):
    grid = RingGrid.healpix(2, ordering)
    transform = TorchHarmonics(grid, 4).double()
    fields = torch.randn(2, grid.size, dtype=torch.float64, requires_grad=True)
    coefficients = torch.randn(2, 25, dtype=torch.float64, requires_grad=True)
    for map_, x in ((transform.analysis, fields), (transform.synthesis, coefficients)):
        assert torch.autograd.gradcheck(map_, (x,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(map_, (x,))


def test_copies_and_pickles_hold_no_tables(way):
    transform = TorchHarmonics(RingGrid.gaussian(32), 31)
    x = torch.randn(2, 32**2)
    fields = transform.synthesis(x)
    assert len(pickle.dumps(transform)) < 20_000
    torch.testing.assert_close(copy.deepcopy(transform).synthesis(x), fields, atol=0.0, rtol=0.0)


def test_what_a_grid_does_not_determine_is_refused():
    on_a_device = TorchHarmonics(RingGrid.healpix(4), 4).to("meta")
    with pytest.raises(ValueError, match=r"CPU only.*on meta"):
        on_a_device.synthesis(torch.zeros(25, device="meta"))
    with pytest.raises(ValueError, match="degrees 0 to 15"):
        TorchHarmonics(RingGrid.gaussian(16), 16)
    with pytest.raises(ValueError, match=r"\(16, 32\).*\(3, 32, 16\)"):
        TorchHarmonics(RingGrid.gaussian(16), 15).analysis(torch.zeros(3, 32, 16))
