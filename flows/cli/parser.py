"""The commands of `spherescore` and their options."""

import argparse
import os
from pathlib import Path
from typing import Any

from flows.cli import commands as do
from flows.stages.base import ON_REQUEST, STAGES

FIRST = """Learns the law of global fields from your files and draws new ones.

  spherescore init 'era5/*.nc' --to my.toml    looks at your files and writes a configuration
  spherescore plan my.toml                     says what a run will take
  spherescore run my.toml                      does it; the same command goes on after a crash

then, in Python:  spherescore.open_ensemble("runs/my")
all commands:     spherescore --help"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="spherescore",
        description="From raw global fields to a verified generated ensemble.",
        epilog="Every key of a configuration, what it may be and its default: spherescore keys",
    )
    parsers = top.add_subparsers(required=True, metavar="command")
    _add_init(parsers)
    what = "list what a configuration may say: all of it, or some sections and keys"
    where = "a section or key, as generate or generate.times"
    _add(parsers, do.keys, what, where, str, several="names", least=0)
    _add(parsers, do.run, "all stages, those that are up to date skipped", works=True)
    what = "estimate bytes, files, memory and units of each stage; writes nothing"
    _add(parsers, do.plan, what)
    for stage in (*STAGES, *ON_REQUEST):
        _add(parsers, do.stage, stage.summary, name=stage.name, works=True)
    what = "what is published, and whether it is up to date with the config"
    _add(parsers, do.status, what)
    _add(parsers, do.check, "read every published byte again and compare its digest")
    _add(parsers, do.runs, "history: every training and ensemble, what differed, what came of it")
    cleaning = _add(parsers, do.clean, "remove what no name refers to; without --yes only say what")
    cleaning.add_argument("--yes", action="store_true", help="remove it")
    _add_export(parsers)
    _add_view(parsers)
    _add_deploy(_add(parsers, do.deploy, "register the run's deployments with a Prefect server"))
    _add_up(parsers)
    return top


def _add(
    parsers: Any,
    command: Any,
    text: str,
    where: str = "the run's TOML file",
    kind: type = Path,
    *,
    name: str = "",
    several: str = "",
    least: int = 1,
    works: bool = False,
) -> argparse.ArgumentParser:
    """A command that takes a path, or several under that name.

    Args:
        least: How many of several there have to be.
        works: Whether it is a run, which ends with all that it has started.
    """
    name = name or command.__name__
    one: argparse.ArgumentParser = parsers.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    number = ("+" if least else "*") if several else None
    one.add_argument(several or "config", nargs=number, type=kind, help=where)
    one.add_argument("--json", action="store_true", help="last line: one JSON object")
    one.add_argument(
        "-v", "--verbose", action="store_true", help="all lines of the log, as its file has them"
    )
    one.add_argument("--debug", action="store_true", help="tracebacks and debug messages")
    words = "receipts" if works else name
    one.set_defaults(command=command, stage=name, works=works, words=words)
    return one


def _add_init(parsers: Any) -> None:
    one = _add(
        parsers,
        do.init,
        "look at files and write a first configuration for them",
        "files, patterns in quotes, or addresses of stores",
        str,
        several="paths",
    )
    one.add_argument("--to", type=Path, help="TOML file to write; else it is printed")
    where = "where the run shall live; else runs/NAME, as the TOML file is called"
    one.add_argument("--root", help=where)


def _add_export(parsers: Any) -> None:
    one = _add(
        parsers,
        do.export,
        "write the ensemble, or sequences, as NetCDF files or as a HEALPix pyramid",
        "the run's TOML file, or its root",
        str,  # a root may be an address
    )
    one.add_argument("--to", type=Path, required=True, help="directory to write to")
    one.add_argument("--format", choices=("netcdf", "pyramid"), default="netcdf")
    one.add_argument("--cmip", metavar="INSTITUTION/MODEL/EXPERIMENT", help="CMIP's names")
    one.add_argument(
        "--of", default="ensemble", help="what: ensemble or sequences, or one with -NAME"
    )


def _add_view(parsers: Any) -> None:
    one = _add(
        parsers,
        do.view,
        "a page to look at what was drawn beside what is real, on this machine alone",
        "the run's TOML file, or its root",
        str,
    )
    one.add_argument("--port", type=int, default=0, help="of the page; 0: a free one")


def _add_up(parsers: Any) -> None:
    one = _add(
        parsers,
        do.up,
        "Prefect server and worker, a Dask cluster and deployments on this machine, until stopped",
        "directory for what they keep",
    )
    one.add_argument(
        "--deploy", type=Path, action="append", default=[], metavar="CONFIG", help="may be repeated"
    )
    _add_when(one)
    one.add_argument("--port", type=int, default=4200, help="of server and UI; 0: a free one")
    one.add_argument("--scheduler-port", type=int, default=8786, help="of Dask")
    one.add_argument("--dashboard-port", type=int, default=8787, help="of Dask")
    one.add_argument("--workers", type=int, default=2, help="of Dask, one thread each")


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
    one.add_argument(
        "--alert",
        default=os.environ.get("SPHERESCORE_ALERT", ""),
        help="who is told of runs that fail: a block of Prefect, as slack-webhook/ops, or the "
        "address of a webhook; or SPHERESCORE_ALERT in the environment",
    )
