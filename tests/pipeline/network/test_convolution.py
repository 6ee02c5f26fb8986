import numpy as np
import torch
from torch.nn import functional

from pipeline.network import convolution
from pipeline.network.convolution import Activation, PadSphere, SphereConv, Stem
from pipeline.sphere.grid import RingGrid


def test_beyond_a_pole_lies_the_same_row_half_a_revolution_away():
    """A smooth field continued over pole and date line is the padded field."""
    grid = RingGrid.gaussian(16)
    wide = np.deg2rad(
        np.concatenate([[180 - grid.latitudes[0]], grid.latitudes, [-180 - grid.latitudes[-1]]])
    )
    step = 2 * np.pi / grid.points[0]
    lon = step * np.arange(-1, grid.points[0] + 1)

    def field(lat, lon):
        x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
        return x * y + z * x - y + z**2

    inner = field(wide[1:-1, None], lon[1:-1])
    padded = PadSphere.apply(torch.from_numpy(inner)[None, None])
    np.testing.assert_allclose(padded[0, 0], field(wide[:, None], lon), atol=1e-12)


def test_the_adjoint_of_padding_is_its_gradient():
    x = torch.randn(1, 2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PadSphere.apply, (x,))


def some_cells(batch: int = 5, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Features (batch, channel, lat, lon), and a scale and a shift (batch, channel) of them."""
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, 6, 4, 8), (batch, 6), (batch, 6)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


def step_by_step(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    cells = functional.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)
    hidden = functional.silu(cells * scale[..., None, None] + shift[..., None, None])
    return PadSphere.apply(hidden)


def test_an_activation_normalises_scales_shifts_and_pads():
    cells = some_cells()
    torch.testing.assert_close(Activation.apply(*cells), step_by_step(*cells), rtol=0, atol=1e-12)


def test_the_gradient_of_an_activation_is_the_one_of_its_steps():
    cells = some_cells(batch=3)
    assert torch.autograd.gradcheck(Activation.apply, cells)


def test_an_activation_does_not_depend_on_how_many_fields_go_at_once(monkeypatch):
    """Bit for bit, with its gradients: five fields in one block, or two at a time."""
    results = []
    for numbers in (1 << 19, 2 * 6 * 4 * 8):
        monkeypatch.setattr(convolution, "BLOCK_NUMBERS", numbers)
        cells = some_cells(dtype=torch.bfloat16)
        padded = Activation.apply(*cells)
        results.append([padded, *torch.autograd.grad(padded.float().square().sum(), cells)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_an_activation_in_bfloat16_rounds_only_its_result():
    """Between input and output it computes in float32: half a unit in the last of 8 bits."""
    low = some_cells(dtype=torch.bfloat16)
    exact = step_by_step(*(part.detach().double() for part in low))
    error = (Activation.apply(*low).double() - exact).abs()
    assert (error <= 2.0**-8 * exact.abs() + 1e-6).all()


def test_pictures_of_all_fields_enter_like_pictures_of_each():
    generator = torch.Generator().manual_seed(0)
    own, common = (torch.randn(n, c, 4, 8, generator=generator) for n, c in ((3, 2), (1, 5)))
    stem = Stem(7, 4)
    together = torch.cat([own, common.expand(3, -1, -1, -1)], dim=1)
    expected = SphereConv.forward(stem, PadSphere.apply(together))
    torch.testing.assert_close(stem(own, common), expected, rtol=0, atol=1e-5)
