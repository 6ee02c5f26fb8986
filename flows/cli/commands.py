"""What each command of `spherescore` does. It returns what it has found as a plain table, which is
what `--json` prints; flows/cli/words has the lines for people.

Nothing is imported here but what all of them need, so that looking does not load what works.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import Interrupted
from flows.progress import for_people

if TYPE_CHECKING:
    from flows.config.schema import RunConfig
    from flows.deployments.wanted import Wanted
    from flows.stages.base import Receipt
    from storage.artifacts.layout import StoreLayout

LOGGER = logging.getLogger("spherescore")


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.config.draft import starter
    from flows.config.strict import ConfigError

    if arguments.to is not None and arguments.to.exists():
        raise ConfigError(f"{arguments.to} is there already; name another file")
    name = arguments.to.stem if arguments.to else "first"
    text = starter(arguments.paths, arguments.root or f"runs/{name}")
    if arguments.to is None:
        return {"config": text, "to": None}
    with arguments.to.open("x", encoding="utf-8") as file:
        file.write(text)
    return {"config": str(arguments.to), "to": str(arguments.to), "look": _looked(arguments.to)}


def _looked(path: Path) -> list[str]:
    """What a first look at the fields shows; why it shows nothing, where it fails.

    The configuration is written by then, and a run of it says the same with its remedy.
    """
    from flows.cli.first_look import first_look
    from flows.config.schema import read_config
    from flows.errors import one_line

    try:
        return first_look(read_config(path))
    except Exception as error:
        return [f"A look at the fields failed: {one_line(error)}"]


def keys(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.config.page import lines

    return {"lines": list(lines(arguments.names))}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    config = _prepare(arguments)
    from flows.deployments.embedded import run_shown
    from flows.run import run as run_all

    with _shown(arguments):
        receipts = run_all(config, execute=run_shown)
    return result(arguments, config, receipts, time.monotonic() - began)


def stage(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    config = _prepare(arguments)
    from flows.run import run_alone

    with _shown(arguments):
        receipt = run_alone(config, arguments.stage)
    return result(arguments, config, [receipt], time.monotonic() - began)


def plan(arguments: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    config = _prepare(arguments, logs=False)
    from flows.plan.plan import estimate, free_space, memory_per_worker, refusal
    from flows.plan.work import prices
    from flows.processes.machine import memory_share
    from flows.stages.block_degree import block_degree_words

    layout, price = config.layout, prices()
    estimates = estimate(config)
    return {
        "stages": {one.stage: asdict(one) for one in estimates},
        "free_bytes": free_space(layout.path),
        "memory_per_worker": memory_per_worker(config),
        "memory_here": memory_share(1),
        "block_degree": block_degree_words(config),
        "prices_of": price.where if price else None,
        "refusal": refusal(config, layout, estimates),
    }


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.run import up_to_date
    from flows.stages.base import STAGES
    from storage.artifacts import publishing as artifacts

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
        stages[one.name] = {
            "state": state,
            "digest": published and published.digest,
            "path": published and artifacts.address(layout, published),
        }
    return {"root": config.run.root, "stages": stages}


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from storage.artifacts import audit
    from storage.artifacts import publishing as artifacts
    from storage.artifacts.lock import in_use

    with in_use(config.layout, reading=True):
        problems = audit.check(config.layout)
    code = artifacts.CorruptArtifact.exit_code * bool(problems)
    return {"root": config.run.root, "problems": problems, "exit_code": code}


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.cli.history import runs as history

    return {"runs": history(config.layout)}


def clean(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.run import current_keys
    from storage.artifacts.garbage import garbage, remove
    from storage.artifacts.lock import in_use

    layout = config.layout
    with in_use(layout, alone=True):
        pieces = garbage(layout, current_keys(config, layout))
        for piece in pieces if arguments.yes else ():
            remove(piece)
    return {
        "removed": arguments.yes,
        "paths": [str(path) for piece in pieces for path in piece.paths],
        "pieces": [
            {"path": str(piece.paths[0]), "bytes": piece.size, "reason": piece.reason}
            for piece in pieces
        ],
        "bytes": sum(piece.size for piece in pieces),
    }


def export(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.cli.export import drawn
    from flows.cli.export import export as export_drawn
    from flows.config.schema import ConfigError, RunConfig
    from storage.artifacts.layout import StoreLayout
    from storage.export.netcdf import Cmip
    from storage.places.places import is_address

    if arguments.cmip and arguments.format != "netcdf":
        raise ConfigError(
            f"--cmip names NetCDF files, and --format is {arguments.format}; leave one of them out"
        )
    root = arguments.config
    if is_address(root) or Path(root).is_dir():
        made = drawn(StoreLayout(root), arguments.of)
        config = RunConfig.from_dict(made.attrs["config"])
        config = replace(config, run=replace(config.run, root=root))
        log_to_people(arguments, [])
    else:
        config = _prepare(arguments, logs=False)
    try:
        cmip = Cmip.named(arguments.cmip) if arguments.cmip else None
    except ValueError as error:
        raise ConfigError(f"--cmip: {error}") from error
    return dict(export_drawn(config, arguments.to, arguments.format, cmip, arguments.of))


def view(arguments: argparse.Namespace) -> dict[str, Any]:
    from importlib.util import find_spec

    from flows.cli.words import say
    from flows.config.schema import ConfigError
    from storage.places.places import is_address

    if find_spec("panel") is None:
        raise ConfigError("spherescore view needs Panel; pip install 'spherescore[view]'")
    root = arguments.config
    if not is_address(root) and not Path(root).is_dir():
        root = _prepare(arguments, logs=False).run.root
    log_to_people(arguments, [])
    from flows.view.server import new_token, serve

    say("Ctrl-C ends it. Open this address, which is for you alone:")
    with suppress(Interrupted, KeyboardInterrupt):
        serve(root, new_token(), arguments.port, told=say)
    return {"root": root}


def deploy(arguments: argparse.Namespace) -> dict[str, Any]:
    _prepare(arguments, logs=False)
    return _deployed(_wanted(arguments, arguments.config), check=arguments.check)


def up(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.cli.words import say
    from flows.config.schema import read_config
    from flows.deployments.up import Ports, machine
    from flows.processes.home import give_home

    for config in arguments.deploy:
        read_config(config)
    give_home(Path(arguments.config))
    log_to_people(arguments, [])
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
            say(f"Prefect         {running.ui} (user and password: {running.state}/secret)")
            say(f"Dask dashboard  {running.dashboard}/status")
            say(f"other terminals . {running.state}/environment")
            running.look_after(LOGGER.warning)
    except Interrupted:
        LOGGER.info("all children have ended")
    return {"state": str(arguments.config)}


def _wanted(arguments: argparse.Namespace, config: Path | None) -> "Wanted":
    from flows.deployments.wanted import Wanted

    names = ("name", "directory", "pool", "kind", "gpus", "nightly", "weekly", "timezone", "alert")
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Wanted(config=config, **given)


def _deployed(wanted: "Wanted", *, check: bool) -> dict[str, Any]:
    from flows.cli.words import say
    from flows.deployments.server import NotDeployed, set_client_environment

    set_client_environment()  # before Prefect is imported
    from flows.deployments.register import deploy as deploy_all

    findings = []
    for finding in deploy_all(wanted, check=check):
        say(finding.words())
        findings.append(finding)
    ok = all(one.ok for one in findings)
    return {
        "findings": [one.to_dict() for one in findings],
        "exit_code": 0 if ok else NotDeployed.exit_code,
    }


def _prepare(arguments: argparse.Namespace, *, logs: bool = True) -> "RunConfig":
    from flows.config.schema import read_config
    from flows.processes.home import give_home

    config = read_config(arguments.config)
    home = give_home(config.layout.scratch)
    files: list[logging.Handler] = []
    if logs:
        directory = config.layout.logs
        directory.mkdir(parents=True, exist_ok=True)
        files.append(logging.FileHandler(directory / "spherescore.log", encoding="utf-8"))
    log_to_people(arguments, files)
    if home is not None:
        LOGGER.info("this user has no home directory; %s is taken for it", home)
    return config


def _shown(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """The stages as lines that fill, if a person watches who has not asked for all lines."""
    if arguments.verbose or arguments.debug or not sys.stderr.isatty():
        return nullcontext()
    from flows.cli.console import shown

    return shown(LOGGER)


def log_to_people(arguments: argparse.Namespace, files: Sequence[logging.Handler]) -> None:
    LOGGER.setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    LOGGER.propagate = False
    people = logging.StreamHandler()
    if not (arguments.verbose or arguments.debug):
        people.addFilter(for_people)
    LOGGER.handlers = [people, *files]
    for handler in LOGGER.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))


def result(
    arguments: argparse.Namespace,
    config: "RunConfig",
    receipts: Sequence["Receipt"],
    seconds: float,
) -> dict[str, Any]:
    """What a run tells its user: where things are, and what was found."""
    from flows.stages.base import ON_REQUEST, STAGES
    from storage.artifacts import publishing as artifacts
    from storage.artifacts.layout import labelled

    layout = config.layout
    made: dict[str, Any] = {}
    asked = [stage for stage in ON_REQUEST if stage.name == arguments.stage]
    kinds = [kind for stage in asked or STAGES for kind in stage.kinds]
    named = [(kind, "") for kind in kinds]
    if not asked:
        named += [("ensemble", one.name) for one in config.generate.scenarios]
        named += [("series", "")] * config.generate.series
        named += [("sequences", one.name) for one in config.generate.sequences]
    for kind, label in named:
        published = artifacts.published(layout, kind, label)
        if published is not None:
            path = artifacts.address(layout, published, label)
            made[labelled(kind, label)] = {"path": path, "digest": published.digest}
    pages = {name: getattr(layout, name) for name in ("scores", "report", "card")}
    for name, place in ({"page": layout.conditioned} if asked else pages).items():
        if place.exists():
            made[name] = {"path": str(place)}
    return {
        "config": str(arguments.config),
        "root": config.run.root,
        "whole": arguments.stage == "run",
        "artifacts": made,
        "stages": {one.stage: one.to_dict() for one in receipts},
        "seconds": round(seconds, 1),
        "nothing_to_do": all(one.skipped for one in receipts),
        "worth": _worth(layout) if arguments.stage in ("run", "verify") else {},
    }


def _worth(layout: "StoreLayout") -> dict[str, str]:
    """What the ensemble is worth, from the report that is published; nothing if none is."""
    import json

    from flows.report.worth import worth

    if not layout.scores.exists():
        return {}
    return worth(json.loads(layout.scores.read_bytes()))
