"""Users without a home directory, as containers have them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.processes.home import give_home

PROGRAM = """
import os, sys
from pathlib import Path
from flows.processes.home import give_home
given = give_home(Path(sys.argv[1]))
assert Path.home() == given == Path(sys.argv[1]) / "home" and given.is_dir()
assert give_home(Path(sys.argv[1])) is None
"""


def test_who_has_a_home_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert give_home(tmp_path / "run") is None
    assert not (tmp_path / "run").exists() and os.environ["HOME"] == str(tmp_path)


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, setpriv")
def test_who_is_in_no_list_of_users_gets_one_below_the_root(tmp_path: Path) -> None:
    directory = tmp_path / "scratch"
    directory.mkdir()
    directory.chmod(0o777)
    for parent in directory.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o711)
    command = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    environment = {key: text for key, text in os.environ.items() if key != "HOME"}
    house = str(Path(__file__).parents[3])
    subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(directory)],
        check=True,
        env=environment | {"PYTHONPATH": house, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
    )


NOBODY_KNOWS = """
import pwd


def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")


pwd.getpwuid = unknown
"""
STAGE_OF_A_RUN = """
import sys
from flows import run as runs
from flows.config.schema import read_config
from flows.deployments.embedded import run_shown
from flows.processes.home import give_home

config = read_config(sys.argv[1])
assert give_home(config.layout.scratch) is not None
(receipt,) = runs.run(config, until="ingest", execute=run_shown)
print(receipt.kind)
"""


@pytest.mark.long
def test_a_run_of_a_user_whom_nobody_knows_is_a_flow_of_prefect(
    tmp_path: Path, table: dict[str, Any], write_config: Callable[[dict[str, Any]], str]
) -> None:
    """The interpreter of a test may be in a home that others cannot enter: the list of users is
    what lacks here, in the run and in all that it starts."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NOBODY_KNOWS)
    house = str(Path(__file__).parents[3])
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path / 'site'}:{house}"}
    done = subprocess.run(
        [sys.executable, "-c", STAGE_OF_A_RUN, write_config(table)],
        env=bare | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fields")
    assert "goes on without it" not in done.stderr and "home directory" not in done.stderr
    run = tmp_path / "run"
    assert (run / "scratch/home").is_dir() and (run / "prefect/prefect.db").is_file()
