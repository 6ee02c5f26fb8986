"""Deployments from an installed wheel: no checkout is there, neither to deploy nor to run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.deployments.up import Ports, machine

from .conftest import HERE, client_of, eventually, lines_of, site_of

pytestmark = pytest.mark.deployments
SOURCES = (
    *("spherescore", "pipeline", "storage", "flows"),
    *("pyproject.toml", "README.md", "LICENSE"),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package as `pip install` makes it, from a wheel that is built here."""
    place = tmp_path_factory.mktemp("installed")
    copy = place / "source"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (HERE / name).is_dir():
            shutil.copytree(HERE / name, copy / name, ignore=ignored)
        else:
            shutil.copy(HERE / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, copy]
    subprocess.run([*map(str, [*pip, *built])], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    target = ["install", "--no-deps", "--target", place / "packages", wheel]
    subprocess.run([*map(str, [*pip, *target])], check=True, capture_output=True)
    shutil.rmtree(copy)
    return place / "packages"


def test_a_wheel_deploys_and_its_deployments_run(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Before what else the environment has installed, be it this checkout.
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.chdir(elsewhere)
    with machine(tmp_path / "machine", ports=Ports(server=0, scheduler=0, dashboard=0)) as running:
        site = site_of(running, tmp_path)
        site.new_days(420)
        config = site.write_config("wheel", cluster={"kind": "address"})
        environment = {**running.environment, "OMP_NUM_THREADS": "1"}

        def command(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", *words], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        where = "import flows, storage, pipeline; print(flows.__path__, storage.__path__)"
        asked = [sys.executable, "-c", where]
        said = subprocess.run(asked, env=environment, capture_output=True, text=True).stdout
        assert str(installed) in said and str(HERE) not in said
        assert "a scheduled run: happened" in command("flows.cli.main", "deploy", str(config))
        with client_of(running) as api:
            deployment = api.read_deployment_by_name("spherescore/wheel")
            asked_for = api.create_flow_run_from_deployment(
                deployment.id, parameters={"until": "train"}
            )
            eventually(lambda: api.read_flow_run(asked_for.id).state.is_final(), 400)
            run = api.read_flow_run(asked_for.id)
            assert run.state_name == "Completed", lines_of(api, run)
        assert command("flows.cli.main", "status", str(config)).count("up to date") == 3
