"""The lock says the same versions as constraints.txt, for all that a run needs."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

from deploy.lock import LEFT_OUT, LOCK, exact, wanted

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, list[str]]:
    """Lines of the lock without their hashes, and the hashes."""
    entries = re.sub(r"\\\n\s*", " ", LOCK.read_text()).splitlines()
    found = {}
    for entry in entries:
        if entry and not entry.startswith("#"):
            line, *hashes = entry.split(" --hash=sha256:")
            found[line.strip()] = [one.strip() for one in hashes]
    return found


def test_versions_are_those_that_are_tested():
    assert set(locked()) <= set(exact().values())


def test_every_package_that_a_run_asks_for_is_locked():
    names = {Requirement(line).name.lower().replace("_", "-") for line in locked()}
    asked = {one.name.lower().replace("_", "-") for one in wanted()}
    assert asked - LEFT_OUT <= names
    assert len(names) > 100


def test_every_file_has_its_sha256():
    for line, hashes in locked().items():
        assert hashes, line
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes), line
