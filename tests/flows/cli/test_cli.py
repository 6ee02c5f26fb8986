import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.cli.export import export
from flows.cli.main import main, parser
from flows.config.page import sections
from flows.config.schema import RunConfig
from flows.stages.base import STAGES
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout, records_of
from storage.artifacts.lock import in_use
from storage.errors import RootInUse

NAMES = [stage.name for stage in STAGES]
Write = Callable[[dict[str, Any]], str]


HEAVY = {"torch", "prefect", "distributed", "matplotlib"}
SCRIPT = """
import sys
from flows.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
assert status == 0, status
print("imported:", *sys.modules)
"""


def imported_by(*arguments: str) -> tuple[str, set[str]]:
    """What a command says, and the modules that it imports in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True
    )
    said, _, modules = done.stdout.rpartition("imported:")
    assert modules, done.stderr
    return said, set(modules.split())


def test_help_imports_nothing_that_is_slow() -> None:
    said, modules = imported_by("--help")
    for command in ("init", "run", "plan", *NAMES, "status", "check"):
        assert command in said
    assert not modules & {*HEAVY, "numpy", "xarray", "dask"}


def test_help_names_the_command_that_lists_every_key_of_a_configuration() -> None:
    assert "spherescore keys" in imported_by("--help")[0]
    said, modules = imported_by("keys")
    assert not modules & {*HEAVY, "numpy", "xarray", "dask"}
    for section in sections():
        assert f"{section.head}  {section.text}" in said
        for key in section.keys:
            assert f"  {key.name:<14} {key.text}" in said


def test_keys_are_listed_by_section_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "spectral.lmax", "verify"]) == 0
    said = capsys.readouterr().out
    first = [line.split()[0] for line in said.splitlines() if line and not line.startswith("   ")]
    assert first == ["[spectral]", "lmax", "[verify]", "dates", "realizations"]
    assert "whole number, needed" in said and "16 by default" in said
    assert main(["keys", "spectral.lmx"]) == 2
    assert "did you mean 'spectral.lmax'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "status"])
def test_looking_imports_nothing_that_works(
    command: str, table: dict[str, Any], write_config: Write
) -> None:
    _, modules = imported_by(command, write_config(table))
    assert not modules & HEAVY


def test_an_installed_command_works_from_anywhere(
    table: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    """With nothing but the installation to find our packages by, in workers too."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli.main", "ingest", write_config(table)],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert artifacts.published(StoreLayout(table["run"]["root"]), "fields") is not None


def test_a_module_that_works_would_be_found() -> None:
    """The instrument of the tests above."""
    done = SCRIPT.replace(
        "from flows.cli.main import main", "import distributed\nmain = lambda _: 0"
    )
    said = subprocess.run([sys.executable, "-c", done], capture_output=True, text=True).stdout
    assert "distributed" in said.split()


@pytest.mark.parametrize("command", ["plan", "status"])
def test_a_reader_that_has_read_enough_is_no_failing_disk(
    command: str, table: dict[str, Any], write_config: Write
) -> None:
    """As in `spherescore plan my.toml | head -1`."""
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", command, write_config(table)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(120) == 141
    assert said == b""


def test_every_stage_is_a_command() -> None:
    commands = " ".join(parser().format_help().split())
    for stage in STAGES:
        assert f"{stage.name} {stage.summary}" in commands


def test_an_error_is_one_line_with_its_exit_code(
    table: dict[str, Any], write_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    table["train"]["lerning_rate"] = 0.1
    assert main(["run", write_config(table)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "train.lerning_rate" in err and "'learning_rate'" in err


def test_an_error_is_an_object_too_if_asked_for(
    table: dict[str, Any], write_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    table["source"]["paths"] = ["absent.nc"]
    assert main(["ingest", write_config(table), "--json"]) == 10
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["exit_code"] == 10
    assert "absent.nc" in last["error"]


def test_debug_shows_the_traceback(
    table: dict[str, Any], write_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    table["source"]["paths"] = ["absent.nc"]
    assert main(["plan", write_config(table), "--debug"]) == 10
    assert "Traceback" in capsys.readouterr().err


def test_a_plan_writes_nothing(
    table: dict[str, Any], write_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", write_config(table), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(json.loads(lines[-1])["stages"]) == set(NAMES)
    assert not Path(table["run"]["root"]).exists()


def test_ingest_then_status_then_check_then_a_flipped_bit(
    table: dict[str, Any], write_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path, root = write_config(table), Path(table["run"]["root"])
    assert main(["ingest", path, "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["artifacts"]["fields"]["path"] == str(root / "fields.zarr")
    assert made["stages"]["ingest"]["digest"] == made["artifacts"]["fields"]["digest"]
    assert not made["nothing_to_do"]

    assert main(["status", path, "--json"]) == 0
    states = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert states["ingest"]["state"] == "up to date"
    assert states["generate"]["state"] == "not published"

    assert main(["check", path]) == 0
    shard = next(file for file in (root / "fields.zarr/z/c").resolve().rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main(["check", path]) == 20
    assert "fields" in capsys.readouterr().out


def test_check_and_export_keep_clean_out(
    config: RunConfig,
    table: dict[str, Any],
    write_config: Write,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def clean(*_: object) -> None:
        with in_use(config.layout, alone=True):
            pass

    config.layout.artifacts.mkdir(parents=True)  # type: ignore[union-attr]
    clean()
    monkeypatch.setattr("storage.artifacts.audit.check", clean)
    assert main(["check", write_config(table)]) == RootInUse.exit_code
    monkeypatch.setattr("flows.cli.export.export_with", clean)
    with pytest.raises(RootInUse, match="`export` or `check` reads"):
        export(config, tmp_path / "out", "netcdf", None)
    assert not (tmp_path / "out").exists()


def test_clean_says_what_would_go_and_takes_it_only_when_told(
    table: dict[str, Any],
    write_config: Callable[[dict[str, Any]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout = StoreLayout(table["run"]["root"])
    first = Path(runs.run_alone(RunConfig.from_dict(table), "ingest").path)
    table["source"]["units"] = {"z": "cm"}
    second = Path(runs.run_alone(RunConfig.from_dict(table), "ingest").path)
    config = write_config(table)
    assert main(["clean", config, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["paths"] == [str(records_of(first)), str(first)] and said["bytes"] > 0
    assert first.exists()
    with in_use(layout):
        assert main(["clean", config, "--yes"]) == RootInUse.exit_code
    assert "a run is at work" in capsys.readouterr().err
    assert main(["clean", config, "--yes"]) == 0
    assert not first.exists() and second.exists()
    assert main(["clean", config]) == 0
    assert "in 0 pieces" in capsys.readouterr().out
