import numpy as np
import pytest
import torch

from pipeline.certificate.path_bound import Certificate
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.gaussian.fit import Moments, fit_isotropic
from pipeline.network import train
from pipeline.network.data_parallel import Group
from pipeline.network.score_network import score_network
from pipeline.network.train import Training, TrainingConfig, TrainingDiverged, load, weights
from pipeline.scores.intervals import Witnesses

LMAX = 7


def two_point_fields(fields: int, seed: int, a: float = 6.0) -> torch.Tensor:
    """A smooth pattern with a random sign in white noise: non-Gaussian in one direction only."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((fields, 1, (LMAX + 1) ** 2))
    pattern = np.zeros((LMAX + 1) ** 2)
    pattern[[2, 5, 7]] = a / 3**0.5
    x[:, 0] += pattern * generator.choice([-1, 1], fields)[:, None]
    return torch.from_numpy(x.astype(np.float32))


def some_training(group: Group | None = None, covariates: int = 0, **options) -> Training:
    x = two_point_fields(2000, 0).numpy()
    model = score_network(
        baseline=fit_isotropic(Moments.of(x)),
        factor=((1 + np.arange(LMAX + 1.0)) ** -1.5)[:, None, None],
        static=np.zeros((1, (LMAX + 1) ** 2)),
        width=16,
        covariates=covariates,
    )
    process = OrnsteinUhlenbeck()
    return Training(
        model=model,
        config=TrainingConfig(**{"steps": 6, "validations": 2, "warmup": 2} | options),
        process=process,
        times=process.power_grid(8),
        group=group or Group(),
    )


def run(training: Training, until: int) -> Training:
    x, season = two_point_fields(64, 1), torch.zeros(64, 1)
    while training.step < until:
        rows = torch.arange(8) + 8 * (training.step % 8)
        training.advance(x[rows], season[rows])
        if training.validation_due:
            training.validate(x[:16], season[:16], draws=2)
    return training


def test_a_resumed_training_equals_an_undisturbed_one_bit_for_bit():
    whole = run(some_training(), 6)
    first = run(some_training(), 3)
    second = some_training()
    second.restore(first.step, first.to_tensors(), first.to_meta())
    run(second, 6)
    ours, theirs = whole.to_tensors(), second.to_tensors()
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    assert whole.to_meta() == second.to_meta()


def test_training_ends_after_its_steps_and_validates_as_often_as_asked():
    training = run(some_training(), 6)
    assert training.progress == 1.0
    assert [entry["step"] for entry in training.history] == [3, 6]


def test_the_best_validation_keeps_its_weights():
    training = run(some_training(), 3)
    training.history[-1]["nats"] = 1e9
    kept = {name: value.clone() for name, value in training.best.items()}
    run(training, 6)
    assert all(torch.equal(kept[name], value) for name, value in training.best.items())


def test_the_error_of_a_validation_knows_that_days_hang_together(monkeypatch):
    """One over the root of n is far too small for days that remember ten others."""
    generator, days = np.random.default_rng(0), 400
    weather = np.convolve(generator.standard_normal(days + 9), np.ones(10))[9 : days + 9]
    times = np.arange(days)

    def certified(model, x, *_, **__):
        nats = weather[np.arange(len(x)) % days]
        by_field, visits = nats[:, None, None], np.zeros((len(x), 1), int)
        return Certificate(by_field=by_field, by_step=by_field.sum(0)[None], visits=visits)

    monkeypatch.setattr(train, "certify", certified)
    training = some_training()
    x, season = torch.zeros(2 * days, 1, 64), torch.zeros(2 * days, 1)
    one = training.validate(x[:days], season[:days])["error"]
    assert one == pytest.approx(10 / days**0.5, rel=0.4)  # 10 is the sum of the weights
    both = training.validate(x, season, witnesses=Witnesses(of=np.tile(times, 2)))["error"]
    assert both == pytest.approx(one)


def test_a_loss_that_is_no_number_stops_the_training():
    training = some_training()
    x = two_point_fields(8, 0)
    x[0, 0, 0] = float("nan")
    before = weights(training.model)
    with pytest.raises(TrainingDiverged, match="step 0"):
        training.advance(x, torch.zeros(8, 1))
    after = weights(training.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_gradient_that_is_no_number_stops_the_training(monkeypatch):
    """A square root at zero has a finite value and an infinite slope."""
    training, loss = some_training(), Training._loss
    first = next(training.model.parameters())

    def steep(self, *batch):
        return loss(self, *batch) + (first - first.detach()).abs().sum().sqrt()

    monkeypatch.setattr(Training, "_loss", steep)
    before = weights(training.model)
    with pytest.raises(TrainingDiverged, match=r"norm of the gradient is (nan|inf) at"):
        training.advance(two_point_fields(8, 0), torch.zeros(8, 1))
    assert all(torch.equal(before[name], value) for name, value in weights(training.model).items())


def test_after_a_rollback_steps_are_half_as_long_and_noise_is_other():
    once = run(some_training(), 3)
    state = once.to_tensors(), once.to_meta()
    again = run(some_training(), 5)
    again.roll_back(3, *state, "the loss is nan")
    assert again.step == 3
    assert again.rollbacks == [{"step": 5, "to": 3, "reason": "the loss is nan"}]
    assert again._learning_rate() == once._learning_rate() / 2
    assert again._seed_of_step() != once._seed_of_step()
    for name, value in weights(once.model).items():
        assert torch.equal(weights(again.model)[name], value)


def test_weights_of_another_network_are_refused():
    training = some_training()
    values = weights(training.model)
    name = next(iter(values))
    values[name] = values[name][..., :1]
    with pytest.raises(ValueError, match=name):
        load(training.model, values)


def test_a_training_without_an_end_is_refused():
    with pytest.raises(ValueError, match="steps or minutes"):
        TrainingConfig()


def test_covariates_are_withheld_as_often_as_asked():
    """Within four standard errors: all of a field at once, or one alone; the season never."""
    training = some_training(forgotten=0.2)
    fields = 20000
    kept = training._withhold(torch.ones(fields, 3), torch.Generator().manual_seed(0)).isfinite()
    assert kept[:, 0].all()
    both, one = 0.2 + 0.8 * 0.2**2, 0.2 + 0.8 * 0.2
    for rate, expected in (
        ((~kept[:, 1:]).all(dim=1).double().mean(), both),
        ((~kept[:, 1]).double().mean(), one),
    ):
        assert abs(float(rate) - expected) < 4 * (expected * (1 - expected) / fields) ** 0.5


def test_a_small_model_learns_what_is_not_gaussian():
    """T-20: J_G of the learned score is positive by more than three standard errors."""
    training = some_training(steps=60, validations=1, warmup=10)
    x, season = two_point_fields(1920, 2), torch.zeros(1920, 1)
    while training.progress < 1:
        rows = torch.arange(32) + 32 * (training.step % 60)
        training.advance(x[rows], season[rows])
    held_out = two_point_fields(600, 3)
    entry = training.validate(held_out, torch.zeros(600, 1), draws=4)
    assert entry["nats"] > 3 * entry["error"]
