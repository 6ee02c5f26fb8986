"""Threads of one process train what one thread trains."""

import copy

import pytest
import torch

from pipeline.network.data_parallel import Threads
from pipeline.network.train import weights
from tests.pipeline.network.test_train import some_training, two_point_fields

FIELDS = 24


def gradients(training, threads: int, **options) -> list[torch.Tensor]:
    """After one step."""
    training = copy.deepcopy(training)
    training.threads = Threads(threads)
    condition = torch.rand((FIELDS, 3), generator=torch.Generator().manual_seed(1))
    training.advance(two_point_fields(FIELDS, 1), condition, **options)
    return [parameter.grad for parameter in training.model.parameters()]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_threads_are_those_of_one_thread(accumulate: int):
    training = some_training(covariates=2, accumulate=accumulate)
    # Its last layer is zero at first, and then only that has a gradient.
    torch.nn.init.normal_(training.model.network.out.weight, std=0.1)
    alone, together = gradients(training, 1), gradients(training, 3)
    largest = max(float(one.abs().max()) for one in alone)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * largest)
    again = gradients(training, 3)
    assert all(torch.equal(one, other) for one, other in zip(together, again, strict=True))


def test_each_thread_has_its_share_of_the_cores_and_the_others_keep_theirs():
    before = torch.get_num_threads()
    threads = Threads(4)
    parts = threads.parts(slice(8, 40))
    assert parts == [slice(8, 16), slice(16, 24), slice(24, 32), slice(32, 40)]
    assert threads.map(lambda part: torch.get_num_threads(), parts) == [1, 1, 1, 1]
    two = Threads(4)
    assert two.map(lambda part: torch.get_num_threads(), two.parts(slice(0, 16))) == [2, 2]
    assert torch.get_num_threads() == before


def test_a_small_part_is_not_divided():
    assert Threads(8).parts(slice(4, 12)) == [slice(4, 12)]
    assert Threads(8).parts(slice(0, 20)) == [slice(0, 10), slice(10, 20)]


def test_with_dropout_masks_come_from_one_thread():
    training = some_training()
    assert training.threads.number == torch.get_num_threads()
    training.model.network.dropout = 0.1
    training.__post_init__()
    assert training.threads.number == 1


def test_what_goes_wrong_in_a_thread_is_told():
    def fails(part: slice) -> None:
        raise ArithmeticError(f"in {part.start}")

    threads = Threads(2)
    with pytest.raises(ArithmeticError, match="in 0"):
        threads.map(fails, threads.parts(slice(0, 16)))


def test_weights_after_steps_of_threads_do_not_depend_on_chance():
    def trained() -> dict[str, torch.Tensor]:
        training = some_training()
        training.threads = Threads(3)
        for _ in range(4):
            training.advance(two_point_fields(FIELDS, 1), torch.zeros(FIELDS, 1))
        return weights(training.model)

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)


def judged(training, threads: int) -> tuple[float, list[torch.Tensor]]:
    """J_G of fields under the averaged weights, and the tables of a calibration."""
    training = copy.deepcopy(training)
    training.average.threads = Threads(threads)
    condition = torch.rand((FIELDS, 3), generator=torch.Generator().manual_seed(1))
    fields = two_point_fields(FIELDS, 1)
    nats = training.validate(fields, condition)["nats"]
    return nats, list(training.calibrate(fields, condition).state_dict().values())


def test_threads_judge_as_one_thread_does(monkeypatch: pytest.MonkeyPatch):
    training = some_training(covariates=2)
    torch.nn.init.normal_(training.average.network.out.weight, std=0.1)
    assert training.average.threads.number == torch.get_num_threads()
    taken: list[int] = []
    started = Threads.map

    def counted(self, work, parts):
        taken.append(len(parts))
        return started(self, work, parts)

    monkeypatch.setattr(Threads, "map", counted)
    alone, together = judged(training, 1), judged(training, 3)
    assert set(taken) == {1, 3}
    assert together[0] == pytest.approx(alone[0], rel=1e-4)
    for one, other in zip(alone[1], together[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
