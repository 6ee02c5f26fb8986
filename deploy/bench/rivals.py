"""The environment of the rivals, and rivals as processes of it that wait to be timed.

A rival is started once, warms up, and then does its work at each request, so that neither the start
of its interpreter nor its set-up is ever timed and ours and theirs alternate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from deploy.bench.timing import Call

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
HOME = BUILD / "rivals"
REQUIREMENTS = Path(__file__).with_name("rivals.txt")


class NotInstalled(RuntimeError):
    """A rival cannot be had here; the message says why."""


class RivalFailed(RuntimeError):
    """A rival ended without an answer."""


def prepare() -> dict[str, str]:
    """Make the environment if need be; the reasons of the rivals that it lacks, by name."""
    wanted, marker = REQUIREMENTS.read_text(encoding="utf-8"), HOME / "installed.json"
    if marker.exists():
        known = json.loads(marker.read_text(encoding="utf-8"))
        if known["requirements"] == wanted and not known["failed"]:
            return {}
    if not _python().exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        scheme = {"base": str(HOME), "platbase": str(HOME)}
        own = Path(sysconfig.get_path("purelib", vars=scheme)) / "ours.pth"
        own.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    failed = {}
    for line in wanted.splitlines():
        if line and not line.startswith("#"):
            command = [_python(), "-m", "pip", "install", "--no-deps", "--quiet", line]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                failed[line.split("==")[0]] = _reason(done.stdout + done.stderr)
    marker.write_text(json.dumps({"requirements": wanted, "failed": failed}, indent=1))
    return failed


class Rival:
    """A process of the other environment in which one rival is set up and warm.

    Args:
        name: as in rivals.txt.
        function: of the module deploy.bench.rival_<name>; it takes the arguments (plain values) and
            returns calls by name, and facts worth telling, as `deploy.bench.child` wants them.
    Raises:
        NotInstalled: If the environment lacks it.
        RivalFailed: If it ended, with what it said last.
    """

    def __init__(self, name: str, function: str, **arguments: Any) -> None:
        failed = prepare()
        if name in failed:
            raise NotInstalled(f"not installed: {failed[name]}")
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        module = f"deploy.bench.rival_{name.replace('-', '_')}"
        self.process = subprocess.Popen(
            [_python(), "-m", "deploy.bench.child", module, function, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            cwd=ROOT,
        )
        try:
            self.facts: dict[str, float] = json.loads(self._answer())
        except RivalFailed:
            self.close()
            raise

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, name: str) -> Call:
        """The seconds of one of its calls."""

        def seconds() -> float:
            assert self.process.stdin is not None
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            return float(self._answer())

        return seconds

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.said.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            raise RivalFailed(f"it failed: {_reason(self.said.read())}")
        return line


def _python() -> Path:
    return HOME / "bin" / "python"


def _reason(said: str) -> str:
    """The line of an output that names the error, or the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    named = [line for line in lines if "error" in line.lower() and "subprocess" not in line]
    return (named or lines)[-1][:200]
