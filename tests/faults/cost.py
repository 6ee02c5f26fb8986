"""What digests, checksums and waiting for the disk cost, as a share of a run's wall time.

    python -m tests.faults.cost [CONFIG]

Timers around sha256, crc32c and fsync in every process of the run (site/sitecustomize.py). Waits
for the disk run side by side in threads, so that their sum bounds what they cost from above.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.runs import ROOT, SITE


def measure(config: Path) -> dict[str, float]:
    """Seconds of the run, and in each of the guarded functions."""
    with tempfile.TemporaryDirectory() as timers:
        orders = {"timers": timers}
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)]),
            "SPHERESCORE_FAULTS": json.dumps(orders),
        }
        began = time.monotonic()
        command = [sys.executable, "-m", "flows.cli.main", "run", str(config)]
        subprocess.run(command, env=environment, check=True)
        found = {"wall": time.monotonic() - began}
        for file in Path(timers).glob("*.json"):
            for name, seconds in json.loads(file.read_text()).items():
                found[name] = found.get(name, 0.0) + seconds
    return found


def main(config: str) -> None:
    found = measure(Path(config))
    wall = found.pop("wall")
    for name, seconds in sorted(found.items()):
        print(f"{name:12s} {seconds:8.2f} s  {seconds / wall:6.2%}")
    print(f"{'together':12s} {sum(found.values()):8.2f} s  {sum(found.values()) / wall:6.2%}")
    print(f"{'wall':12s} {wall:8.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["deploy/configs/demo.toml"])
