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
from typing import Any

from flows.cli.parser import FIRST, parser
from flows.errors import Interrupted, OutputClosed, exit_code_of, one_line
from flows.processes.network_boundary import exempt_loopback
from flows.processes.signals import PATIENCE, caught, ending_within, take_over
from flows.processes.watchdog import watched

WRONG_USE = 2  # as argparse has it


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if not given:
        print(FIRST)
        return WRONG_USE
    arguments = parser().parse_args(given)
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
    """Say it once, although the deadline strikes again if Python takes long to end."""
    interrupted = Interrupted(number)
    if vars(arguments).setdefault("told_of", interrupted) is not interrupted:
        return interrupted.exit_code
    message = "interrupted; finished units are safe, run again to go on"
    return _refuse(arguments, message, interrupted)


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
