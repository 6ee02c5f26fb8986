"""The demonstration, cut small, on every kind of cluster that there is here: the digests are equal.

    make clusters

Each run is the whole command, with all stages and Prefect: on local workers, at the address of a
scheduler with TLS, and as jobs of Slurm with a GPU each, one of which is cancelled on the way.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from tests import slurm as services
from tests.services import HOUSE, Certificates, dask_cluster

CUT = {
    "spectral": {"lmax": 10},
    "train": {"steps": 6, "width": 8, "blocks": 1, "batch": 8},
    "generate": {"realizations": 16, "batch": 1, "times": ["2002-01-15"]},
    "verify": {"dates": 4, "realizations": 4},
}
KINDS = ("fields", "normals", "whitened", "checkpoints", "ensemble")


def table(root: Path, cluster: dict[str, Any]) -> dict[str, Any]:
    demo = tomllib.loads((HOUSE / "deploy" / "configs" / "demo.toml").read_text())
    demo["source"]["paths"] = [str(HOUSE / path) for path in demo["source"]["paths"]]
    demo["spectral"] |= CUT["spectral"]
    return demo | {
        "run": {"root": str(root)},
        **{name: CUT[name] for name in ("train", "generate", "verify")},
        "cluster": cluster,
    }


def run(directory: Path, name: str, cluster: dict[str, Any]) -> dict[str, str]:
    """The digests of one run."""
    config = directory / f"{name}.toml"
    config.write_text(as_toml(table(directory / name, cluster)))
    command = [sys.executable, "-m", "flows.cli.main", "run", str(config), "--json"]
    place = {**os.environ, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(command, env=place, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name}: exit code {done.returncode}")
    made = json.loads(done.stdout.splitlines()[-1])["artifacts"]
    return {kind: made[kind]["digest"] for kind in KINDS}


def cancel_one(here: services.Slurm, records: Path, ended: Event, cancelled: list[str]) -> None:
    """Cancel a job once the ensemble has begun."""
    while not ended.wait(0.1):
        if len(list(records.glob("artifacts/ensemble-*.records/*"))) >= 2:
            for job in here.running()[:1]:
                here.ask("scancel", job)
                cancelled.append(job)
            return


def as_toml(tables: dict[str, Any]) -> str:
    lines = []
    for section, values in tables.items():
        lines += [f"[{section}]", *(f"{key} = {spelled(value)}" for key, value in values.items())]
    return "\n".join(lines)


def spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {spelled(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return json.dumps(value)


def main() -> None:
    found: dict[str, dict[str, str]] = {}
    with TemporaryDirectory() as name:
        directory = Path(name)
        found["local"] = run(directory, "local", {"workers": 2})
        tls = Certificates(directory / "tls")
        with dask_cluster(directory / "dask", workers=2, tls=tls) as started:
            there = {"kind": "address", "address": started.address, "tls": tls.table}
            found["TLS"] = run(directory, "tls-run", there | {"patience": 300})
        if reason := services.why_not():
            print(f"no Slurm: {reason}")
        else:
            with services.slurm(directory / "slurm") as here:
                os.environ |= here.environment
                asked = {"interface": "lo", "prologue": [f"export PYTHONPATH={HOUSE}"]}
                jobs = {"kind": "slurm", "workers": 2, "memory": "2GiB", "gpus": 1}
                ended, cancelled = Event(), list[str]()
                root = directory / "slurm-run"
                watch = Thread(target=cancel_one, args=(here, root, ended, cancelled))
                watch.start()
                found["Slurm"] = run(
                    directory, "slurm-run", jobs | {"patience": 300, "slurm": asked}
                )
                ended.set()
                watch.join()
                print(f"cancelled on the way: {cancelled}")
    for kind in KINDS:
        print(f"{kind:<12}" + "  ".join(f"{name} {one[kind][:12]}" for name, one in found.items()))
    if any(one != found["local"] for one in found.values()):
        raise SystemExit("the digests differ")


if __name__ == "__main__":
    main()
