"""Seeded faults: each is a mistake that a person could make, and each must turn a test red.

    python tests/mutants/run.py [NAME ...]

Every fault of faults.toml is put into a copy of the checkout, alone, and its tests are run there.
Exit status 1 if the tests of a fault pass, or if its text is no longer in the code exactly once.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 900  # seconds; a fault may well have no end
COPIED = ("pipeline", "storage", "flows", "tests", "spherescore", "deploy", "pyproject.toml")


def main(names: list[str]) -> int:
    """Try the faults of these names, or all; print one line for each."""
    faults = tomllib.loads((Path(__file__).parent / "faults.toml").read_text())["fault"]
    wanted = [fault for fault in faults if not names or fault["name"] in names]
    if unknown := set(names) - {fault["name"] for fault in faults}:
        print(f"no such fault: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        tests = sorted({test for fault in wanted for test in fault["tests"]})
        if red := _failing(copy, tests):
            print(f"tests fail without any fault; repair them first:\n{red}", file=sys.stderr)
            return 1
        survived = [fault["name"] for fault in wanted if not _caught(copy, fault)]
    print(f"{len(wanted) - len(survived)} of {len(wanted)} faults caught")
    if survived:
        print(f"not caught: {', '.join(survived)}", file=sys.stderr)
    return 1 if survived else 0


def _caught(copy: Path, fault: dict) -> bool:
    file, began = copy / fault["file"], time.monotonic()
    text = file.read_text()
    if text.count(fault["find"]) != 1:
        print(
            f"{fault['name']:42s} its text is in {fault['file']} {text.count(fault['find'])} times"
        )
        return False
    file.write_text(text.replace(fault["find"], fault["replace"]))
    red = _failing(copy, fault["tests"])
    file.write_text(text)
    seconds = time.monotonic() - began
    print(f"{fault['name']:42s} {red or 'SURVIVED'} ({seconds:.0f} s)", flush=True)
    return bool(red)


def _failing(copy: Path, tests: list[str]) -> str:
    """The first test that fails, or nothing."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", "not deployments", *tests]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"no end within {LONGEST} s"
    if done.returncode == 0:
        return ""
    lines = done.stdout.splitlines() or done.stderr.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"pytest ended with {done.returncode}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
