"""The directory of `spherescore up`: whom it belongs to, and who can read it."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from flows.deployments.up import Ports, machine, write_for_owner
from flows.processes.supervisor import ServiceFailed


def test_a_reader_who_has_the_environment_open_sees_nothing_of_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        with path.open() as stranger:
            write_for_owner(path, "secret")
            assert stranger.read() == "old"
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert path.read_text() == "secret"
    assert [one.name for one in tmp_path.iterdir()] == ["environment"]


def test_a_directory_on_a_disk_without_locks_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    refused = pytest.raises(ServiceFailed, match=f"{tmp_path}.*without file locks.*local disk")
    with refused, machine(tmp_path, ports=Ports(server=0, scheduler=0, dashboard=0)):
        pass
    assert not (tmp_path / "secret").exists()
