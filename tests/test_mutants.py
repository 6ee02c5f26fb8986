"""The list of seeded faults fits the code; `make mutants` shows that each is found."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = tomllib.loads((ROOT / "tests/mutants/faults.toml").read_text())["fault"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["name"])
def test_a_fault_has_one_place_and_tests_that_exist(fault):
    times = (ROOT / fault["file"]).read_text().count(fault["find"])
    assert times == 1, f"its text is in {fault['file']} {times} times"
    assert fault["replace"] != fault["find"]
    assert fault["tests"]
    for test in fault["tests"]:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), f"there is no {file}"
        function = name.partition("[")[0]
        assert f"def {function}" in (ROOT / file).read_text(), f"{file} has no test {function}"
