"""What each command of `spherescore` does: it prints results, and returns them as plain tables.

Nothing is imported here but what all of them need, so that looking does not load what works.
"""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import Interrupted

if TYPE_CHECKING:
    from flows.config.schema import RunConfig
    from flows.deployments.register import Wanted
    from flows.stages.base import Receipt

LOGGER = logging.getLogger("spherescore")

STAGE_COMMANDS = {
    "ingest": "check the source and write fields.zarr",
    "preprocess": "fit what is taken away (normals.zarr) and write whitened.zarr",
    "train": "train the score model",
    "generate": "draw the ensemble",
    "verify": "score the model on held-out dates and write the report",
}


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.config.draft import starter
    from flows.config.strict import ConfigError

    if arguments.to is not None and arguments.to.exists():
        raise ConfigError(f"{arguments.to} is there already; name another file")
    text = starter(arguments.paths, arguments.root)
    if arguments.to is None:
        print(text, end="")
        return {"config": text}
    with arguments.to.open("x", encoding="utf-8") as file:
        file.write(text)
    print(f"{arguments.to} is written; look it through, then: spherescore run {arguments.to}")
    return {"config": str(arguments.to)}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    config = _prepare(arguments)
    from flows.run import run as run_all

    receipts = run_all(config)
    if all(receipt.skipped for receipt in receipts):
        print(f"nothing to do: {config.run.root} is up to date with {arguments.config}")
    return _result(config, receipts, time.monotonic() - began)


def stage(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    config = _prepare(arguments)
    from flows.run import run_alone

    receipt = run_alone(config, arguments.stage)
    return _result(config, [receipt], time.monotonic() - began)


def plan(arguments: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    config = _prepare(arguments, logs=False)
    from flows.plan.costs import prices
    from flows.plan.plan import duration, estimate, free_space, memory_per_worker, preflight, spoken
    from flows.processes.machine import memory_share

    layout = config.layout
    estimates = estimate(config)
    free, memory = free_space(layout.path), memory_per_worker(config)
    print(
        f"{'stage':<12}{'time':>10}{'writes':>12}{'files':>8}{'units':>8}{'worker':>12}{'here':>12}"
    )
    for one in estimates:
        print(
            f"{one.stage:<12}{duration(one.seconds):>10}{spoken(one.bytes):>12}{one.files:>8}"
            f"{one.units:>8}{spoken(one.memory) if one.memory else '-':>12}"
            f"{spoken(one.memory_here):>12}"
        )
    room = "-" if free is None else spoken(free)
    print(f"{'there is':<22}{room:>12}{'':>16}{spoken(memory):>12}{spoken(memory_share(1)):>12}")
    price = prices()
    print(f"times at the speed of: {price.where}" if price else "no times: see make unit-costs")
    preflight(config, layout, [one.stage for one in estimates])
    return {
        "stages": {one.stage: asdict(one) for one in estimates},
        "free_bytes": free,
        "memory_per_worker": memory,
        "memory_here": memory_share(1),
    }


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.run import up_to_date
    from flows.stages.base import STAGES
    from storage.artifacts import publishing as artifacts
    from storage.places.places import is_address

    layout = config.layout
    current = {receipt.stage for receipt in up_to_date(config, layout, point_names=False)}
    stages: dict[str, Any] = {}
    for one in STAGES:
        published = artifacts.published(layout, one.kinds[-1])
        if one.name in current:
            state = "up to date"
        elif published is not None:
            state = "of another configuration, or of older inputs or code"
        else:
            state = "not published"
        path = published and artifacts.address(layout, published)
        stages[one.name] = {
            "state": state,
            "digest": published and published.digest,
            "path": path,
        }
        print(
            f"{one.name:<12}{(published.digest[:16] if published else '-'):<18}{state}"
            + (f"  {path}" if path and is_address(path) else "")
        )
    return {"root": config.run.root, "stages": stages}


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from storage.artifacts import audit
    from storage.artifacts import publishing as artifacts

    problems = audit.check(config.layout)
    print("\n".join(problems) if problems else f"{config.run.root}: every published byte is right")
    return {"problems": problems, "exit_code": artifacts.CorruptArtifact.exit_code * bool(problems)}


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.cli.history import runs as history
    from flows.cli.history import table

    rows = history(config.layout)
    print(table(rows))
    return {"runs": rows}


def clean(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.plan.plan import spoken
    from flows.run import current_keys
    from storage.artifacts.garbage import garbage, remove
    from storage.artifacts.lock import in_use

    layout = config.layout
    with in_use(layout, alone=True):
        pieces = garbage(layout, current_keys(config, layout))
        for piece in pieces:
            print(f"{spoken(piece.size):>12}  {piece.paths[0]}: {piece.reason}")
            if arguments.yes:
                remove(piece)
    total = sum(piece.size for piece in pieces)
    end = "removed" if arguments.yes else "would be removed; nothing is yet, see --yes"
    print(f"{spoken(total):>12}  in {len(pieces)} pieces {end}")
    removed = [str(path) for piece in pieces for path in piece.paths]
    return {"removed": arguments.yes, "paths": removed, "bytes": total}


def export(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.cli.export import export as export_ensemble
    from flows.config.schema import ConfigError, RunConfig
    from flows.stages.base import published_input
    from storage.artifacts.layout import StoreLayout
    from storage.export.netcdf import Cmip
    from storage.places.places import is_address

    root = arguments.config
    if is_address(root) or Path(root).is_dir():
        made = published_input(StoreLayout(root), "ensemble")
        config = RunConfig.from_dict(made.attrs["config"])
        config = replace(config, run=replace(config.run, root=root))
        _log(arguments, [])
    else:
        config = _prepare(arguments, logs=False)
    try:
        cmip = Cmip.named(arguments.cmip) if arguments.cmip else None
    except ValueError as error:
        raise ConfigError(f"--cmip: {error}") from error
    result = export_ensemble(config, arguments.to, arguments.format, cmip)
    print(f"{result['written']} of {result['files']} written to {result['directory']}")
    return result


def deploy(arguments: argparse.Namespace) -> dict[str, Any]:
    _prepare(arguments, logs=False)
    return _deployed(_wanted(arguments, arguments.config), check=arguments.check)


def up(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.config.schema import read_config
    from flows.deployments.up import Ports, machine

    for config in arguments.deploy:
        read_config(config)
    _log(arguments, [])
    ports = Ports(
        server=arguments.port,
        scheduler=arguments.scheduler_port,
        dashboard=arguments.dashboard_port,
    )
    LOGGER.info("starting; logs are in %s", arguments.config)
    try:
        with machine(arguments.config, ports=ports, workers=arguments.workers) as running:
            os.environ.update(running.environment)  # before Prefect is imported
            for config in arguments.deploy or [None]:
                _deployed(_wanted(arguments, config), check=False)
            print(f"Prefect         {running.ui} (user and password: {running.state}/secret)")
            print(f"Dask dashboard  {running.dashboard}/status")
            print(f"other terminals . {running.state}/environment", flush=True)
            running.look_after(LOGGER.warning)
    except Interrupted:
        LOGGER.info("all children have ended")
    return {"state": str(arguments.config)}


def _wanted(arguments: argparse.Namespace, config: Path | None) -> "Wanted":
    from flows.deployments.register import Wanted

    names = ("file", "pool", "kind", "gpus", "nightly", "weekly", "timezone")
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Wanted(config=config, **given)


def _deployed(wanted: "Wanted", *, check: bool) -> dict[str, Any]:
    from flows.deployments.register import NotDeployed
    from flows.deployments.register import deploy as deploy_all

    findings = []
    for finding in deploy_all(wanted, check=check):
        print(finding.words(), flush=True)
        findings.append(finding)
    ok = all(one.ok for one in findings)
    return {
        "findings": [one.to_dict() for one in findings],
        "exit_code": 0 if ok else NotDeployed.exit_code,
    }


def _prepare(arguments: argparse.Namespace, *, logs: bool = True) -> "RunConfig":
    from flows.config.schema import read_config

    config = read_config(arguments.config)
    files: list[logging.Handler] = []
    if logs:
        directory = config.layout.logs
        directory.mkdir(parents=True, exist_ok=True)
        files.append(logging.FileHandler(directory / "spherescore.log", encoding="utf-8"))
    _log(arguments, files)
    return config


def _log(arguments: argparse.Namespace, files: Sequence[logging.Handler]) -> None:
    LOGGER.setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    LOGGER.propagate = False
    LOGGER.handlers = [logging.StreamHandler(), *files]
    for handler in LOGGER.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))


def _result(config: "RunConfig", receipts: Sequence["Receipt"], seconds: float) -> dict[str, Any]:
    """Say where things are, and gather them for `--json`."""
    from flows.stages.base import STAGES
    from storage.artifacts import publishing as artifacts

    layout = config.layout
    made: dict[str, Any] = {}
    kinds = [kind for stage in STAGES for kind in stage.kinds]
    for kind in [*kinds, "series"] if config.generate.series else kinds:
        published = artifacts.published(layout, kind)
        if published is not None:
            path = artifacts.address(layout, published)
            made[kind] = {"path": path, "digest": published.digest}
    for name in ("scores", "report", "card"):
        place = getattr(layout, name)
        if place.exists():
            made[name] = {"path": str(place)}
    for kind, artifact in made.items():
        print(f"{kind:<14}{artifact['path']}")
    figures = {name: value for one in receipts for name, value in one.figures.items()}
    return {
        "root": config.run.root,
        "artifacts": made,
        "stages": {one.stage: one.to_dict() for one in receipts},
        "seconds": round(seconds, 1),
        "nothing_to_do": all(one.skipped for one in receipts),
        "J_G": figures.get("J_G"),
    }
