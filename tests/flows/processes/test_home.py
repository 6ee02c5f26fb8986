"""Users without a home directory, as containers have them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
