"""The `spherescore` command: what people type, exit codes and one-line errors.

Results go to stdout, everything else to stderr. The exit code of an error is the `exit_code` of
its exception (flows.errors.ExitCode; docs/reliability.md explains them).
"""

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows.cli import commands as do
from flows.errors import Interrupted, OutputClosed, exit_code_of, one_line
from flows.processes.network_boundary import exempt_loopback
from flows.processes.signals import PATIENCE, caught, ending_within, take_over
from flows.processes.watchdog import watched
from flows.stages.base import STAGES


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    take_over()
    exempt_loopback(os.environ)
    try:
        with _ended_with_it(arguments):
            result = arguments.command(arguments)
        return _show(arguments, result)
    except BaseException as error:
        number = caught()  # whatever a library has made of it
        if number is not None or isinstance(error, KeyboardInterrupt):
            return _interrupted(arguments, number or signal.SIGINT)
        if isinstance(error, OutputClosed):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
            return error.exit_code
        if not isinstance(error, Exception):
            raise
        return _refuse(arguments, one_line(error), error)


def _show(arguments: argparse.Namespace, result: dict[str, Any]) -> int:
    """Print what a command has found, for people and, if asked for, for programs."""
    from flows.cli import words

    lines = getattr(words, arguments.words, None)
    for line in lines(result) if lines else ():
        words.say(line)
    if refusal := result.pop("refusal", None):
        raise refusal
    if arguments.json:
        words.say(json.dumps(result, allow_nan=False))
    return int(result.get("exit_code", 0))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="spherescore", description="From raw global fields to a verified generated ensemble."
    )
    parsers = top.add_subparsers(required=True, metavar="command")

    def add(
        name: str,
        command: Any,
        text: str,
        where: str = "the run's TOML file",
        kind: type = Path,
        several: str = "",
        works: bool = False,
    ) -> argparse.ArgumentParser:
        one = parsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.add_argument(several or "config", nargs="+" if several else None, type=kind, help=where)
        one.add_argument("--json", action="store_true", help="last line: one JSON object")
        one.add_argument("--debug", action="store_true", help="tracebacks and debug messages")
        one.set_defaults(
            command=command, stage=name, works=works, words="receipts" if works else name
        )
        return one

    beginning = add(
        "init",
        do.init,
        "look at files and write a first configuration for them",
        "files, patterns in quotes, or addresses of stores",
        str,
        several="paths",
    )
    beginning.add_argument("--to", type=Path, help="TOML file to write; else it is printed")
    beginning.add_argument("--root", default="runs/first", help="where the run shall live")
    add("run", do.run, "all stages, those that are up to date skipped", works=True)
    add("plan", do.plan, "estimate bytes, files, memory and units of each stage; writes nothing")
    for stage in STAGES:
        add(stage.name, do.stage, stage.summary, works=True)
    add("status", do.status, "what is published, and whether it is up to date with the config")
    add("check", do.check, "read every published byte again and compare its digest")
    add("runs", do.runs, "history: every training and ensemble, what differed and what came of it")
    cleaning = add("clean", do.clean, "remove what no name refers to; without --yes only say what")
    cleaning.add_argument("--yes", action="store_true", help="remove it")
    out = add(
        "export",
        do.export,
        "write the ensemble as NetCDF files or as a HEALPix pyramid",
        "the run's TOML file, or its root",
        str,  # a root may be an address
    )
    out.add_argument("--to", type=Path, required=True, help="directory to write to")
    out.add_argument("--format", choices=("netcdf", "pyramid"), default="netcdf")
    out.add_argument("--cmip", metavar="INSTITUTION/MODEL/EXPERIMENT", help="CMIP's names")
    _add_deploy(add("deploy", do.deploy, "register the run's deployments with a Prefect server"))
    serving = add(
        "up",
        do.up,
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


def _add_deploy(one: argparse.ArgumentParser) -> None:
    one.add_argument("--check", action="store_true", help="only look; makes a probe run")
    one.add_argument("--name", default="", help="of the deployments; else that of the file")
    one.add_argument("--pool", default="spherescore", help="work pool")
    one.add_argument(
        "--directory", type=Path, help="where runs start on the workers' machines; else this one"
    )
    one.add_argument("--kind", choices=("process", "docker", "kubernetes"), default="process")
    _add_when(one)


def _add_when(one: argparse.ArgumentParser) -> None:
    one.add_argument("--gpus", type=int, default=1, help="stages on a GPU at once")
    one.add_argument("--nightly", default="0 2 * * *", metavar="CRON", help="new files taken in")
    one.add_argument("--weekly", default="0 4 * * 0", metavar="CRON", help="training")
    one.add_argument("--timezone", default="UTC", help="of both")


@contextmanager
def _ended_with_it(arguments: argparse.Namespace) -> Iterator[None]:
    """What a run has started ends with it, and it ends within seconds of a signal."""
    if not arguments.works:
        yield
        return
    words = partial(_interrupted, arguments)
    with watched(), ending_within(PATIENCE, words):
        yield


def _interrupted(arguments: argparse.Namespace, number: int) -> int:
    message = "interrupted; finished units are safe, run again to go on"
    return _refuse(arguments, message, Interrupted(number))


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


if __name__ == "__main__":
    sys.exit(main())
