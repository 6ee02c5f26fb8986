"""What the certificate of a run says in words."""

import copy

import numpy as np
import pytest

from flows.stages.verify.certificate import _block, statement

FOUND = {
    "over": {"m-block": {"nats": 222.0, "low": 210.0, "high": 230.0, "per_coefficient": 0.05}},
    "baseline": "m-block",
    "chain": {"integrator": "gme", "steps": 32, "drawn_with": "gme"},
    "fields": 184,
}


def test_the_statement_is_about_held_out_fields_one_baseline_and_one_sampler():
    words = statement(FOUND)
    for part in (
        "184 held-out fields",
        "95 % Monte-Carlo confidence",
        "GME chain of 32 steps",
        "fitted m-block Gaussian law by at least 210.0 nats",
        "0.05 for each coefficient",
        "The divergence itself stays unknown",
        "chosen on the validation split; this is measured on the test split",
    ):
        assert part in words


def test_without_an_improvement_none_is_stated():
    found = copy.deepcopy(FOUND)
    found["over"]["m-block"]["low"] = -1.0
    assert "no improvement" in statement(found) and "at least" not in statement(found)


def test_an_ensemble_of_another_integrator_is_not_covered():
    found = copy.deepcopy(FOUND)
    found["chain"]["drawn_with"] = "z-heun"
    assert "drawn with z-heun, which the number does not cover" in statement(found)


@pytest.mark.parametrize(("days", "block"), [(1.0, 15), (5.0, 3), (30.0, 1)])
def test_blocks_last_fifteen_days(days, block):
    day = days * np.arange(200)
    day[100:] += 7.0  # a gap
    assert _block(2 * np.pi * day / 365.25 % (2 * np.pi)) == block
