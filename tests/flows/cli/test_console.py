"""A person at a terminal sees lines that fill; a pipe gets plain lines; files get everything."""

import argparse
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import run as runs
from flows.cli import commands
from flows.cli.commands import LOGGER
from flows.cli.console import Terminal
from flows.cli.words import receipts
from flows.progress import at_intervals, shown_on, stage_progress
from flows.report.worth import CARE, worth
from flows.stages.base import Receipt

HERE = Path(__file__).parents[3]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_a_terminal(*words: str, columns: int = 100, **environment: str) -> tuple[int, str]:
    """What a command shows on a terminal of this width, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    given = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *words],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=HERE,
        env=given,
        start_new_session=True,
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # how Linux says that nobody holds the other end
        pass
    finally:
        os.close(ours)
    return process.wait(), b"".join(parts).decode()


def screen(terminal: Terminal, width: int = 100) -> str:
    console = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    console.print(terminal)
    return console.export_text()


def test_a_terminal_shows_a_line_that_fills_and_the_log_keeps_every_line(
    table: dict[str, Any], write_config: Callable[..., str], tmp_path: Path
) -> None:
    code, shown = on_a_terminal("ingest", write_config(table))
    plain = ESCAPES.sub("", shown)
    assert code == 0, plain
    assert "✓ ingest" in plain and "times 90" in plain
    assert "ingest: published" not in plain  # the line says it
    assert "fields" in plain and str(tmp_path / "run" / "fields.zarr") in plain
    assert shown.rindex("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is there again
    log = (tmp_path / "run" / "logs" / "spherescore.log").read_text()
    assert "ingest: starts" in log and "ingest: published" in log


def test_a_refusal_on_a_terminal_is_one_line(
    table: dict[str, Any], write_config: Callable[..., str]
) -> None:
    table["source"]["variables"] = ["absent"]
    code, shown = on_a_terminal("ingest", write_config(table))
    assert code == 10
    assert "spherescore: " in ESCAPES.sub("", shown) and "Traceback" not in shown


def test_a_terminal_without_a_cursor_gets_lines(
    table: dict[str, Any], write_config: Callable[..., str]
) -> None:
    code, shown = on_a_terminal("ingest", write_config(table), TERM="dumb")
    assert code == 0 and "\x1b" not in shown and "ingest: published" in shown


def test_lines_say_what_waits_works_is_done_and_is_up_to_date() -> None:
    terminal = Terminal()
    terminal.expects({"preprocess": 7.0, "train": 360.0, "generate": None})
    with shown_on(terminal), stage_progress("train") as progress:
        progress(212, 709, "loss 0.41")
    terminal.ends("ingest", {"times": 1096, "fit": {"z": "a sentence"}}, skipped=True)
    said = screen(terminal)
    assert re.search(r"· preprocess +about 7 s", said)
    assert re.search(r"▸ train +[━╸╺]+ +212 of 709, loss 0\.41 +0 s of about 6\.0 min", said)
    assert re.search(r"· generate *\n", said)
    assert re.search(r"= ingest +━+ times 1096 +up to date", said)
    assert "a sentence" not in said


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_line_fits_into_the_terminal(width: int) -> None:
    terminal = Terminal()
    terminal.ends("verify", {"J_G over everything that there is": "1 " * 200}, skipped=False)
    lines = screen(terminal, width).splitlines()
    assert len(lines) == 1 and len(lines[0]) <= width


def test_nothing_is_logged_of_what_a_display_shows(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "spherescore"),
        shown_on(Terminal()),
        stage_progress("train") as progress,
    ):
        progress(1, 2, "loss")
    assert caplog.records == []


def test_long_stages_speak_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], []
    monkeypatch.setattr("flows.progress.time.monotonic", lambda: now[0])
    tell = at_intervals(10.0, lambda done, total, text: told.append(now[0]), share=0.2)
    for second in range(3600):
        now[0] = float(second)
        tell(second, 3600, "")
    assert told[:6] == [0, 10, 20, 30, 40, 50]
    assert len(told) < 30  # 360 at one in ten seconds


@pytest.mark.parametrize("verbose", [False, True])
def test_sentences_of_theory_are_for_files_and_for_those_who_ask(
    verbose: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = Receipt(
        stage="preprocess", kind="whitened", path="", key="", digest="", seconds=1.0,
        figures={"fit": {"z": "kappa 42"}, "times": 90},
    )  # fmt: skip
    file = logging.FileHandler(tmp_path / "log")
    kept = LOGGER.handlers, LOGGER.propagate
    try:
        commands.log_to_people(argparse.Namespace(verbose=verbose, debug=False), [file])
        runs.tell(receipt, tmp_path / "whitened.zarr", 1.0)
    finally:
        LOGGER.handlers, LOGGER.propagate = kept
        file.close()
    shown, written = capsys.readouterr().err, (tmp_path / "log").read_text()
    assert "published" in shown and ("kappa 42" in shown) == verbose
    assert "published" in written and "kappa 42" in written


def card(nats: float, low: float, high: float, ratios: list[float]) -> dict[str, Any]:
    part = {"nats": nats, "low": low, "high": high}
    scores = {
        f"v{i}": {
            "crps": {"model": {"ratio": {"value": one}}},
            "spread": {"model": {"ratio": {"value": 0.1}}},
        }
        for i, one in enumerate(ratios)
    }
    certificate = {"over": {"whole": part, "m-block": part}, "best": {"name": "whole"}}
    return {"certificate": certificate, "scores": scores, "caveats": []}


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((100, 300), "is closer to held-out days than"),
        ((-100, 300), "is not surely closer than"),
        ((-300, -100), "is farther from held-out days than"),
    ],
)
def test_what_an_ensemble_is_worth_is_said_with_its_certainty(interval, verdict) -> None:
    said = worth(card(200, *interval, [1.0, 1.5, 4.0]))
    assert verdict in said["J_G"] and f"[{interval[0]}, {interval[1]}]" in said["J_G"]
    assert said["scores"].startswith("typically 1.50 times") and "1.00 to 4.00" in said["scores"]
    assert said["careful"] == CARE and "in 3 scores" in said["scores"]  # spread is no error
    warned = worth({**card(200, *interval, []), "caveats": ["z: beyond training"]})
    assert warned["careful"] == "z: beyond training" and "scores" not in warned


def test_days_that_follow_each_other_are_said_before_days_by_themselves() -> None:
    """Single days of a run that learns sequences are of a Gaussian law, which is not its worth."""
    of_days = card(-405, -486, -323, [])
    linear = {"nats": 2300.8, "low": 2255.3, "high": 2346.2}
    time = {"past": 2, "ladder": {"AR(1)": linear, "1": linear, "2": linear}}
    said = worth({**of_days, "time": time})
    assert list(said)[:2] == ["in time", "J_G"]
    assert said["in time"] == (
        "2301 nats [2255, 2346] a day: given the 2 days before, the model is closer to held-out "
        "days than days by themselves"
    )
    assert said["J_G"].startswith("single days: -405 nats")
    time["certificate"] = {"past": 2, "nats": 2781.0, "low": 2746.0, "high": 2816.0}
    learned = worth({**of_days, "time": time})["in time"]
    assert learned.startswith("2781 nats [2746, 2816] a day: given the 2 days before")
    assert learned.endswith("closer to held-out days than VAR(2)")
    assert "in time" not in worth({**of_days, "time": {"past": 2, "ladder": {}}})


def test_what_rounds_to_nothing_is_said_without_a_sign() -> None:
    assert worth(card(-0.4, -1.2, -0.3, []))["J_G"].startswith("0 nats [-1, 0]:")


def test_a_ratio_to_a_floor_of_nothing_is_not_written_out() -> None:
    assert "(1.00 to more than 99 in 2" in worth(card(1, 0, 2, [1.0, 5.2e21]))["scores"]


def test_every_name_stands_apart_from_its_place_in_one_column() -> None:
    made = {name: {"path": "runs/my"} for name in ("fields", "sequences-after-the-heat-wave")}
    lines = list(receipts({"nothing_to_do": False, "artifacts": made, "worth": {"J_G": "9"}}))
    assert {line.index("runs") for line in lines if "runs" in line} == {lines[-1].index("9")}
    assert lines[1].startswith("sequences-after-the-heat-wave  ")


def test_the_command_alone_says_what_to_type_first() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main"], cwd=HERE, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "spherescore init" in done.stdout and "spherescore run my.toml" in done.stdout
