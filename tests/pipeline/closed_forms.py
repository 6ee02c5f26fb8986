"""Laws whose score is known in closed form, as baselines and scores of the package."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.gaussian.fit import Baseline


class Diagonal(Baseline):
    """A baseline in whitened coordinates themselves."""

    name = "diagonal"

    def __init__(self, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("variance", variance.double())

    def rotate(self, x: Tensor) -> Tensor:
        return x

    def unrotate(self, y: Tensor) -> Tensor:
        return y

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"variance": self.variance.numpy()}


class Dense(Baseline):
    """The Gaussian law of one channel with any covariance, (coefficient, coefficient)."""

    name = "dense"

    def __init__(self, covariance: np.ndarray) -> None:
        super().__init__()
        values, vectors = np.linalg.eigh(covariance)
        self.register_buffer("vectors", torch.as_tensor(vectors, dtype=torch.float64))
        self.register_buffer("variance", torch.as_tensor(values, dtype=torch.float64)[None])

    def rotate(self, x: Tensor) -> Tensor:
        return x @ self.vectors.to(x.dtype)

    def unrotate(self, y: Tensor) -> Tensor:
        return y @ self.vectors.to(y.dtype).T

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors.numpy(), "variance": self.variance.numpy()}


@dataclass(frozen=True, kw_only=True)
class Entropies:
    """What is known of a law mu_t with score b and Gaussian baseline N(0, V) at one time [nats].

    Attributes:
        kl: KL(mu_t | gamma).
        fisher: I(mu_t | gamma) = E|b|^2 = -d kl / dt.
        curvature: E|D^2 log f_t|^2 (Hilbert-Schmidt); d fisher / dt = -2 fisher - 2 curvature.
        negentropy: KL(mu_t | N(0, V)).
        residual: E|rho|^2 = -d negentropy / dt.
    """

    kl: float
    fisher: float
    curvature: float
    negentropy: float
    residual: float


class TwoPoint:
    """X_0 = +-m + Z with a smooth field m of Cameron-Martin norm a, along the first coordinate.

    b_t(x) = e^-t m tanh(e^-t <m, x>); its Gaussian baseline has the variances 1 + a^2, 1, 1, ...
    `scale` multiplies the residual: 1 is the exact score.
    """

    def __init__(self, a: float, coefficients: int = 4, scale: float = 1.0) -> None:
        self.a, self.scale = a, scale
        variance = torch.ones(1, coefficients)
        variance[0, 0] += a**2
        self.baseline = Diagonal(variance)

    def score(self, t: Tensor, y: Tensor) -> Tensor:
        decay = torch.exp(-t.double())[:, None]
        b = torch.zeros_like(y, dtype=torch.float64)
        b[..., 0] = decay * self.a * torch.tanh(decay * self.a * y[..., 0].double())
        return b

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        v = OrnsteinUhlenbeck.variance(t.double()[:, None, None], self.baseline.variance)
        return self.scale * (self.score(t, y) - (1 - 1 / v) * y)

    def sample(self, fields: int, generator: torch.Generator) -> Tensor:
        x = torch.randn((fields, *self.baseline.variance.shape), generator=generator).double()
        sign = 2 * torch.randint(0, 2, (fields,), generator=generator) - 1
        x[:, 0, 0] += self.a * sign
        return x

    def log_density(self, y: np.ndarray, t: float) -> np.ndarray:
        """Log of the density of the first coordinate at diffusion time t."""
        mean = self.a * math.exp(-t)
        return np.logaddexp(-((y - mean) ** 2) / 2, -((y + mean) ** 2) / 2) - math.log(
            2 * math.sqrt(2 * math.pi)
        )

    def entropies(self, t: float) -> Entropies:
        """By quadrature over the first coordinate; the others contribute nothing."""
        mean = self.a * math.exp(-t)
        x = np.linspace(-mean - 12, mean + 12, 8001)
        weight = np.exp(self.log_density(x, t)) * (x[1] - x[0])
        b, v = mean * np.tanh(mean * x), 1 + mean**2
        kl = float(weight @ np.logaddexp(mean * x, -mean * x)) - math.log(2) - mean**2 / 2
        return Entropies(
            kl=kl,
            fisher=float(weight @ b**2),
            curvature=float(weight @ (mean / np.cosh(mean * x)) ** 4),
            negentropy=kl - (v - 1 - math.log(v)) / 2,
            residual=float(weight @ (b - (1 - 1 / v) * x) ** 2),
        )


class RadialMixture:
    """The coefficients of one degree are sum_i w_i N(0, s_i I); those of lower degrees are white.

    b_l = x_l (1 - sum_i p_i / V_i) with p_i proportional to w_i V_i^(-(2l + 1)/2)
    exp(-|x_l|^2 / 2 V_i), an isotropic law of one channel.
    """

    def __init__(self, degree: int, variances: tuple[float, ...], weights: tuple[float, ...]):
        self.degree, self.block = degree, slice(degree**2, (degree + 1) ** 2)
        self.variances = torch.tensor(variances, dtype=torch.float64)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        variance = torch.ones(1, (degree + 1) ** 2, dtype=torch.float64)
        variance[:, self.block] = self.weights @ self.variances
        self.baseline = Diagonal(variance)

    def score(self, t: Tensor, y: Tensor) -> Tensor:
        b = torch.zeros_like(y, dtype=torch.float64)
        block = y[..., self.block].double()
        b[..., self.block] = block * self._slope(t.double()[:, None], block.square().sum(-1))[0]
        return b

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        v = OrnsteinUhlenbeck.variance(t.double()[:, None, None], self.baseline.variance)
        return self.score(t, y) - (1 - 1 / v) * y

    def sample(self, fields: int, generator: torch.Generator) -> Tensor:
        x = torch.randn((fields, *self.baseline.variance.shape), generator=generator).double()
        which = torch.multinomial(self.weights, fields, replacement=True, generator=generator)
        x[:, :, self.block] *= self.variances[which].sqrt()[:, None, None]
        return x

    def kl_and_fisher(self, t: float) -> tuple[float, float]:
        """KL(mu_t | gamma) and I(mu_t | gamma) [nats] by quadrature over the squared radius."""
        n, time = 2 * self.degree + 1, torch.tensor([[t]], dtype=torch.float64)
        v = OrnsteinUhlenbeck.variance(time[0], self.variances).numpy()
        u = np.linspace(1e-9, 2 * float(v.max()) * (n + 60), 400_001)
        log_chi2 = (n / 2 - 1) * np.log(u[:, None] / v) - u[:, None] / (2 * v)
        log_chi2 -= np.log(v) + n / 2 * math.log(2) + gammaln(n / 2)
        weight = np.exp(log_chi2) @ self.weights.numpy() * (u[1] - u[0])
        slope, log_f = self._slope(time, torch.from_numpy(u)[:, None])
        return (
            float(weight @ log_f[:, 0].numpy()),
            float(weight @ (u * slope[:, 0, 0].numpy() ** 2)),
        )

    def _slope(self, t: Tensor, squared_radius: Tensor) -> tuple[Tensor, Tensor]:
        """1 - sum_i p_i / V_i, with a last axis of length one, and log f_t at a squared radius."""
        v = OrnsteinUhlenbeck.variance(t[..., None], self.variances)
        n = 2 * self.degree + 1
        log_terms = torch.log(self.weights / v ** (n / 2)) - squared_radius[..., None] / (2 * v)
        slope = 1 - (torch.softmax(log_terms, dim=-1) / v).sum(-1, keepdim=True)
        return slope, torch.logsumexp(log_terms, dim=-1) + squared_radius / 2


class GaussianMixture:
    """X_0 ~ sum_k w_k N(mean_k, covariance_k) of one channel; the score by log-sum-exp.

    Its baseline has the covariance of the mixture; `score` and `residual` are in the baseline's
    coordinates. The means must average to zero, as anomalies do.

    Args:
        means: (component, coefficient); further white coefficients are zeros here and ones in
            the covariances, (component, coefficient, coefficient).
    """

    def __init__(self, means: np.ndarray, covariances: np.ndarray, weights: np.ndarray) -> None:
        assert np.allclose(weights @ means, 0)
        self.means, self.covariances, self.weights = (
            torch.as_tensor(part, dtype=torch.float64) for part in (means, covariances, weights)
        )
        spread = np.einsum("k,ki,kj->ij", weights, means, means)
        self.baseline = Dense(np.einsum("k,kij->ij", weights, covariances) + spread)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """Log of the density at x (..., coefficient) in whitened coordinates, t ()."""
        eye = torch.eye(self.means.shape[1], dtype=torch.float64)
        covariance = eye + torch.exp(-2 * t) * (self.covariances - eye)
        law = torch.distributions.MultivariateNormal(torch.exp(-t) * self.means, covariance)
        return torch.logsumexp(law.log_prob(x[..., None, :]) + torch.log(self.weights), dim=-1)

    def score(self, t: Tensor, y: Tensor) -> Tensor:
        """b = x + sum_k p_k(x) C_k^-1 (e^-t mean_k - x), turned into the baseline's coordinates."""
        x, decay = self.baseline.unrotate(y.double())[:, 0], torch.exp(-t.double())
        eye = torch.eye(x.shape[1], dtype=torch.float64)
        covariance = eye + decay[:, None, None, None] ** 2 * (self.covariances - eye)
        gap = decay[:, None, None] * self.means - x[:, None]
        pull = torch.linalg.solve(covariance, gap)
        log_terms = torch.log(self.weights) - 0.5 * (
            (gap * pull).sum(-1) + torch.linalg.slogdet(covariance)[1]
        )
        b = x + (torch.softmax(log_terms, dim=-1)[..., None] * pull).sum(1)
        return self.baseline.rotate(b[:, None])

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        v = OrnsteinUhlenbeck.variance(t.double()[:, None, None], self.baseline.variance)
        return self.score(t, y) - (1 - 1 / v) * y

    def sample(self, fields: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(self.weights, fields, replacement=True, generator=generator)
        white = torch.randn((fields, self.means.shape[1]), generator=generator).double()
        root = torch.linalg.cholesky(self.covariances)[which]
        return (self.means[which] + (root @ white[..., None])[..., 0])[:, None]
