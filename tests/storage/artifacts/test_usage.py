"""Runs share a root, who cleans it wants it alone, and the dead keep nobody out."""

import errno
import os
import subprocess
import sys
import time

import pytest

from storage.artifacts import lock as usage
from storage.artifacts.layout import StoreLayout
from storage.artifacts.lock import in_use
from storage.errors import RootInUse
from storage.places import buckets


@pytest.fixture
def layout(tmp_path):
    return StoreLayout(str(tmp_path / "run"))


@pytest.fixture
def machines(bucket, tmp_path):
    """One root in a bucket, as three machines see it: they share no lock of a disk."""
    return [StoreLayout(f"s3://{bucket}/a/run", str(tmp_path / name)) for name in "abc"]


def killed_in(layout: StoreLayout) -> None:
    """A process that uses the root and is killed."""
    code = (
        "import os, signal; from storage.artifacts.lock import in_use; "
        "from storage.artifacts.layout import StoreLayout; "
        f"layout = StoreLayout{layout.root, layout.local}\n"
        "with in_use(layout): os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120)
    assert done.returncode < 0


def test_runs_share_a_root_and_cleaning_wants_it_alone(layout):
    busy = pytest.raises(RootInUse, match="a run is at work")
    with in_use(layout), in_use(layout), busy, in_use(layout, alone=True):
        pass
    with in_use(layout, alone=True), pytest.raises(RootInUse, match="clean"), in_use(layout):
        pass


def test_readers_and_runs_share_a_root_and_cleaning_waits_for_readers(layout):
    with in_use(layout):
        pass
    with in_use(layout, reading=True), in_use(layout), in_use(layout, reading=True):
        pass
    busy = pytest.raises(RootInUse, match="`export` or `check` reads")
    with in_use(layout, reading=True), busy, in_use(layout, alone=True):
        pass
    with in_use(layout, alone=True), pytest.raises(RootInUse), in_use(layout, reading=True):
        pass


def test_a_reader_makes_no_root(layout):
    with in_use(layout, reading=True):
        pass
    assert not layout.path.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_a_disk_has_no_locks_leases_stand_in(layout, monkeypatch, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(usage.fcntl, "flock", flock)
    busy = pytest.raises(RootInUse, match=r"a run is at work in .*, and gave its last sign 0 s ago")
    with in_use(layout), in_use(layout), busy, in_use(layout, alone=True):
        pass
    busy = pytest.raises(RootInUse, match="`export` or `check` is at work")
    with in_use(layout, reading=True), busy, in_use(layout, alone=True):
        pass
    with in_use(layout, alone=True), pytest.raises(RootInUse, match="clean"), in_use(layout):
        pass
    assert [*(layout.path / ".in-use").iterdir()] == []
    monkeypatch.setattr(usage, "LEASE", 0.3)
    (layout.path / ".in-use" / "run-of-one-that-died").touch()
    time.sleep(0.6)
    with in_use(layout, alone=True):
        assert len([*(layout.path / ".in-use").iterdir()]) == 1


def test_a_lock_that_fails_is_told_as_what_it_is(layout, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(usage.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), in_use(layout):
        pass


def test_the_lock_of_a_dead_process_is_free(layout):
    killed_in(layout)
    with in_use(layout, alone=True):
        pass


def test_in_a_bucket_runs_of_two_machines_share_and_cleaning_wants_it_alone(machines):
    one, two, other = machines
    busy = pytest.raises(RootInUse, match=r"a run is at work in s3://\S+/a/run, and gave its last")
    with in_use(one), in_use(two), busy, in_use(other, alone=True):
        pass
    with in_use(one, alone=True):
        with pytest.raises(RootInUse, match="clean"), in_use(other):
            pass
        with pytest.raises(RootInUse, match="clean"), in_use(other, alone=True):
            pass
    busy = pytest.raises(RootInUse, match=r"`export` or `check` is at work in s3://\S+/a/run")
    with (
        in_use(one, reading=True),
        in_use(two),
        pytest.raises(RootInUse),
        in_use(other, alone=True),
    ):
        pass
    with in_use(one, reading=True), busy, in_use(other, alone=True):
        pass
    with in_use(one, alone=True), pytest.raises(ValueError), in_use(layout_beside(one)):
        raise ValueError  # another root of the bucket is another room
    assert buckets.times(one.path.bucket, one.path.key) == {}


def layout_beside(layout: StoreLayout) -> StoreLayout:
    return StoreLayout(layout.root + "-2", layout.local + "-2")


def test_a_run_in_a_bucket_renews_its_sign_and_that_of_a_dead_one_runs_out(machines, monkeypatch):
    one, other, _ = machines
    killed_in(one)
    with pytest.raises(RootInUse), in_use(other, alone=True):
        pass
    monkeypatch.setattr(usage, "LEASE", 2.0)  # the server tells times in whole seconds
    with in_use(one):
        time.sleep(4)
        with pytest.raises(RootInUse), in_use(other, alone=True):
            pass
    with in_use(other, alone=True):  # the dead one's has run out, and is gone
        assert len(buckets.times(one.path.bucket, one.path.key)) == 1
