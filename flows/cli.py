"""The `spherescore` command: what people type, exit codes and one-line errors.

Results go to stdout, everything else to stderr. The exit code of an error is the `exit_code` of
its exception: 2 bad config, 10 input invalid, 11 input changed, 20 corrupt, 21 incomplete, 22 name
conflict, 24 config changed on resume, 30 no space, 31 storage unavailable, 32 publish outcome
unknown, 40 workers lost, 41 out of memory, 42 workers run other code, 43 stalled, 44 a service of
`up` failed, 45 no Prefect server, 46 not deployed as wanted, 50 training diverged, 51 sample not
finite, 60 refused for security; 1 for what nobody foresaw, 130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.failures import exit_code_of

if TYPE_CHECKING:
    from flows.config import RunConfig
    from flows.deploy import Wanted
    from flows.stage import Receipt

LOGGER = logging.getLogger("spherescore")

STAGE_COMMANDS = {
    "ingest": "check the source and write fields.zarr",
    "preprocess": "fit what is taken away (normals.zarr) and write whitened.zarr",
    "train": "train the score model",
    "generate": "draw the ensemble",
    "verify": "score the model on held-out dates and write the report",
}


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: contexts are left in order, so workers and servers end with us."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        result = arguments.command(arguments)
    except KeyboardInterrupt as stop:
        return _refuse(arguments, "interrupted; finished units are safe, run again to go on", stop)
    except Exception as error:
        return _refuse(arguments, _one_line(error), error)
    if arguments.json:
        print(json.dumps(result, allow_nan=False), flush=True)
    return int(result.get("exit_code", 0))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="spherescore", description="From raw global fields to a verified generated ensemble."
    )
    commands = top.add_subparsers(required=True, metavar="command")

    def add(
        name: str, command: Any, text: str, where: str = "the run's TOML file", kind: type = Path
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.add_argument("config", type=kind, help=where)
        one.add_argument("--json", action="store_true", help="last line: one JSON object")
        one.add_argument("--debug", action="store_true", help="tracebacks and debug messages")
        one.set_defaults(command=command, stage=name)
        return one

    _add_init(commands)
    add("run", run, "all stages, those that are up to date skipped")
    add("plan", plan, "estimate bytes, files, memory and units of each stage; writes nothing")
    for name, text in STAGE_COMMANDS.items():
        add(name, stage, text)
    add("status", status, "what is published, and whether it is up to date with the config")
    add("check", check, "read every published byte again and compare its digest")
    add("runs", runs, "history: every training and ensemble, what differed and what came of it")
    cleaning = add("clean", clean, "remove what no name refers to; without --yes only say what")
    cleaning.add_argument("--yes", action="store_true", help="remove it")
    out = add(
        "export",
        export,
        "write the ensemble as NetCDF files or as a HEALPix pyramid",
        "the run's TOML file, or its root",
        str,  # a root may be an address
    )
    out.add_argument("--to", type=Path, required=True, help="directory to write to")
    out.add_argument("--format", choices=("netcdf", "pyramid"), default="netcdf")
    out.add_argument("--cmip", metavar="INSTITUTION/MODEL/EXPERIMENT", help="CMIP's names")
    _add_deploy(add("deploy", deploy, "register the run's deployments with a Prefect server"))
    serving = add(
        "up",
        up,
        "Prefect server and worker, a Dask cluster and deployments on this machine, until stopped",
        "directory for what they keep",
    )
    serving.add_argument(
        "--deploy", type=Path, action="append", default=[], metavar="CONFIG", help="may be repeated"
    )
    _add_when(serving)
    serving.add_argument("--port", type=int, default=4200, help="of server and UI; 0: a free one")
    serving.add_argument("--scheduler-port", type=int, default=8786, help="of Dask")
    serving.add_argument("--dashboard-port", type=int, default=8787, help="of Dask")
    serving.add_argument("--workers", type=int, default=2, help="of Dask, one thread each")
    return top


def _add_init(commands: Any) -> None:
    text = "look at files and write a first configuration for them"
    one = commands.add_parser("init", help=text, description=text[0].upper() + text[1:] + ".")
    one.add_argument("paths", nargs="+", help="files, patterns in quotes, or addresses of stores")
    one.add_argument("--to", type=Path, help="TOML file to write; else it is printed")
    one.add_argument("--root", default="runs/first", help="where the run shall live")
    one.add_argument("--json", action="store_true", help="last line: one JSON object")
    one.add_argument("--debug", action="store_true", help="tracebacks and debug messages")
    one.set_defaults(command=init, stage="init")


def _add_deploy(one: argparse.ArgumentParser) -> None:
    one.add_argument("--check", action="store_true", help="only look; makes a probe run")
    one.add_argument("--pool", default="spherescore", help="work pool")
    one.add_argument("--kind", choices=("process", "docker", "kubernetes"), default="process")
    _add_when(one)


def _add_when(one: argparse.ArgumentParser) -> None:
    one.add_argument("--file", type=Path, default=Path("deploy/prefect.yaml"), help="deployments")
    one.add_argument("--gpus", type=int, default=1, help="stages on a GPU at once")
    one.add_argument("--nightly", default="0 2 * * *", metavar="CRON", help="new files taken in")
    one.add_argument("--weekly", default="0 4 * * 0", metavar="CRON", help="training")
    one.add_argument("--timezone", default="UTC", help="of both")


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    from flows.starter import starter
    from flows.strict import ConfigError

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
    from flows.orphans import watched
    from flows.run import run as run_all

    with watched():
        receipts = run_all(config)
    if all(receipt.skipped for receipt in receipts):
        print(f"nothing to do: {config.run.root} is up to date with {arguments.config}")
    return _result(config, receipts, time.monotonic() - began)


def stage(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    config = _prepare(arguments)
    from flows.orphans import watched
    from flows.run import run_alone

    with watched():
        receipt = run_alone(config, arguments.stage)
    return _result(config, [receipt], time.monotonic() - began)


def plan(arguments: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    config = _prepare(arguments, logs=False)
    from flows.costs import prices
    from flows.plan import duration, estimate, free_space, memory_per_worker, preflight, spoken

    layout = config.layout
    estimates = estimate(config)
    free, memory = free_space(layout.path), memory_per_worker(config)
    print(f"{'stage':<12}{'time':>10}{'writes':>12}{'files':>8}{'units':>8}{'memory':>12}")
    for one in estimates:
        print(
            f"{one.stage:<12}{duration(one.seconds):>10}{spoken(one.bytes):>12}{one.files:>8}"
            f"{one.units:>8}{spoken(one.memory):>12}"
        )
    room = "-" if free is None else spoken(free)
    print(f"{'there is':<22}{room:>12}{'':>16}{spoken(memory):>12} in each worker")
    price = prices()
    print(f"times at the speed of: {price.where}" if price else "no times: see make unit-costs")
    preflight(config, layout, [one.stage for one in estimates])
    return {
        "stages": {one.stage: asdict(one) for one in estimates},
        "free_bytes": free,
        "memory_per_worker": memory,
    }


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.run import up_to_date
    from flows.stage import STAGES
    from storage import artifacts
    from storage.places import is_address

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
    from storage import artifacts, audit

    problems = audit.check(config.layout)
    print("\n".join(problems) if problems else f"{config.run.root}: every published byte is right")
    return {"problems": problems, "exit_code": artifacts.CorruptArtifact.exit_code * bool(problems)}


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.runs import runs as history
    from flows.runs import table

    rows = history(config.layout)
    print(table(rows))
    return {"runs": rows}


def clean(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _prepare(arguments, logs=False)
    from flows.plan import spoken
    from flows.run import current_keys
    from storage.garbage import garbage, remove
    from storage.usage import in_use

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
    from flows.config import ConfigError, RunConfig
    from flows.export import export as export_ensemble
    from flows.stage import published_input
    from storage.export import Cmip
    from storage.layout import StoreLayout
    from storage.places import is_address

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
    from flows.config import read_config
    from flows.up import Ports, machine

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
    from flows.deploy import Wanted

    names = ("file", "pool", "kind", "gpus", "nightly", "weekly", "timezone")
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Wanted(config=config, **given)


def _deployed(wanted: "Wanted", *, check: bool) -> dict[str, Any]:
    from flows.deploy import NotDeployed
    from flows.deploy import deploy as deploy_all

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
    from flows.config import read_config

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
    from flows.stage import STAGES
    from storage import artifacts

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


def _refuse(arguments: argparse.Namespace, message: str, error: BaseException) -> int:
    if arguments.debug:
        traceback.print_exception(error)
    code = exit_code_of(error)
    if code == 1 and not arguments.debug and isinstance(error, Exception):
        message += " (unexpected; --debug shows the traceback)"
    print(f"spherescore: {message}", file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps({"error": message, "exit_code": code}), flush=True)
    return code


def _one_line(error: Exception) -> str:
    text = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(str(error).split())
    )
    named = hasattr(error, "exit_code") or isinstance(error, OSError)
    return text if text and named else f"{type(error).__name__}: {text}"


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
