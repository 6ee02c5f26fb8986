"""What `pip install` of the wheel gives: the command, the door and the deployments work where no
checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

HOUSE = Path(__file__).parent.parent
PACKAGES = ("spherescore", "pipeline", "storage", "flows")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def built(place: Path) -> Path:
    """The wheel, from a copy of what it is made of."""
    for name in SOURCES:
        source, target = HOUSE / name, place / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    asked = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, place / "source"]
    subprocess.run([*PIP, *map(str, asked)], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, and the dependencies of this one."""
    place = tmp_path_factory.mktemp("wheel")
    home = place / "venv"
    venv.EnvBuilder(symlinks=True).create(home)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # Directories alone: what an editable installation of this checkout hooks in stays behind.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", home / "bin" / "python", "install", "--no-deps", built(place)]
    subprocess.run([*PIP, *map(str, install)], check=True, capture_output=True)
    return home / "bin"


@pytest.fixture
def command(bin_: Path, tmp_path: Path) -> Callable[..., str]:
    """A command of that environment, typed in an empty directory; returns what it printed."""

    def typed(name: str, *words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(bin_ / name), *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return typed


@pytest.mark.long
def test_a_wheel_goes_from_files_to_an_ensemble_and_its_deployments(command, bin_, tmp_path):
    days = xr.date_range("2000-01-01", "2002-12-31", freq="4D")
    values = np.random.default_rng(0).standard_normal((len(days), 8, 16)).astype("f4")
    attrs = {"standard_name": "geopotential_height", "units": "m", "cell_methods": "time: mean"}
    xr.Dataset(
        {"z": (("time", "lat", "lon"), values, attrs)},
        {
            "time": days,
            "lat": ("lat", 78.75 - 22.5 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
    ).to_netcdf(tmp_path / "days.nc")

    command("spherescore", "init", "days.nc", "--to", "my.toml", "--root", "runs/my")
    config = (tmp_path / "my.toml").read_text()
    assert "gaussian:m-block" in config
    (tmp_path / "my.toml").write_text(config.replace("dates = 48", "dates = 6"))
    command("spherescore", "run", "my.toml")
    assert "up to date" in command("spherescore", "run", "my.toml")

    said = command("python", "-c", READ).split()
    assert said == ["(32,", "2,", "8,", "16)", "5", "True"]
    found = command("python", "-c", DEFINED).splitlines()
    assert found[0].startswith(str(bin_.parent))
    assert "my-nightly" in found and "my-verify" in found


READ = """
import spherescore, xarray as xr
ensemble = xr.open_dataset("runs/my", engine="spherescore")
skipped = spherescore.run("my.toml")["skipped"]
print(ensemble["z"].shape, len(spherescore.plan("my.toml")), skipped.all())
"""
DEFINED = """
from pathlib import Path
import flows
from flows.deployments.definitions import definitions
from flows.deployments.pool import job_template
from flows.deployments.wanted import Wanted
print(flows.__path__[0])
assert job_template("docker") and job_template("kubernetes")
print(*(one.name for one in definitions(Wanted(config=Path("my.toml")))), sep="\\n")
"""


def test_every_package_says_that_it_is_typed(bin_):
    (site,) = bin_.parent.glob("lib/python*/site-packages")
    assert [name for name in PACKAGES if not (site / name / "py.typed").is_file()] == []
