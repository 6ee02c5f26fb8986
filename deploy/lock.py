"""Write deploy/requirements.lock: every package that a run needs, with the sha256 of its files.

    python -m deploy.lock

For Linux on x86_64 and arm64 and the running version of Python, from constraints.txt, by pip. torch
is left out: which build is right depends on the machine, and each has a file of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deploy" / "requirements.lock"
LEFT_OUT = {"torch"}
GLIBC = (28, 27, 24, 17)
HEAD = """# Packages of a run (extras grib and remote, torch left out), exact, with the sha256 of
# their files for Linux on x86_64 and arm64, Python {python}. By `make lock`. First torch, then
#   pip install --require-hashes --no-deps -r deploy/requirements.lock && pip install --no-deps .
"""


def exact() -> dict[str, str]:
    """The lines of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    known = [line for line in lines if line and not line.startswith("#")]
    return {str(canonicalize_name(Requirement(line).name)): line for line in known}


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(x) for x in (*project["dependencies"], *extras["grib"], *extras["remote"])]


def report(lines: list[str], *options: str) -> list[dict[str, Any]]:
    """What pip would install of these exact lines, and nothing else."""
    with tempfile.TemporaryDirectory() as directory:
        listed, found = Path(directory, "list.txt"), Path(directory, "report.json")
        listed.write_text("\n".join(lines))
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--no-deps", "--report", str(found), *options, "-r", str(listed)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        made: list[dict[str, Any]] = json.loads(found.read_text())["install"]
        return made


def needed(installed: list[dict[str, Any]]) -> set[str]:
    """Names of all packages that a run needs, by what the packages themselves require."""
    requires = {
        str(canonicalize_name(one["metadata"]["name"])): one["metadata"].get("requires_dist", [])
        for one in installed
    }
    found: set[str] = set()
    waiting = wanted()
    while waiting:
        one = waiting.pop()
        name = str(canonicalize_name(one.name))
        key = f"{name}[{','.join(sorted(one.extras))}]"
        if key in found or name in LEFT_OUT:
            continue
        found |= {key, name}
        for line in requires.get(name, []):
            inner = Requirement(line)
            extras = one.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(inner)
    return {name for name in found if "[" not in name}


def main() -> None:
    lines = {name: line for name, line in exact().items() if name not in LEFT_OUT}
    here = report(list(lines.values()))
    names = sorted(needed(here) & set(lines))
    platforms = [f"manylinux_2_{version}_aarch64" for version in GLIBC]
    options = [
        word for one in (*platforms, "manylinux2014_aarch64") for word in ("--platform", one)
    ]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    there = report(
        [lines[name] for name in names],
        *("--only-binary=:all:", "--target", "none", "--python-version", python, *options),
    )
    hashes: dict[str, set[str]] = {name: set() for name in names}
    for one in (*here, *there):
        name = str(canonicalize_name(one["metadata"]["name"]))
        if name in hashes:
            hashes[name].add(one["download_info"]["archive_info"]["hashes"]["sha256"])
    text = [HEAD.format(python=python).rstrip()]
    for name in names:
        files = " \\\n    ".join(f"--hash=sha256:{one}" for one in sorted(hashes[name]))
        text.append(f"{lines[name]} \\\n    {files}")
    LOCK.write_text("\n".join(text) + "\n")
    print(f"{LOCK.relative_to(ROOT)}: {len(names)} packages")


if __name__ == "__main__":
    main()
