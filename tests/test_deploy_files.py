"""What is shipped for other machines, looked at offline: by schemas, a linter, Prefect itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.templating import apply_values
from ruamel.yaml import YAML

from flows.deployments.register import Wanted, job_template

HERE = Path(__file__).parents[1]
FILE = HERE / "deploy" / "prefect.yaml"


def rendered(kind: Any) -> dict[str, Any]:
    """What a worker makes of a pool's template, with the defaults and a run's own values."""
    template = job_template(Wanted(config=None, file=FILE, kind=kind))
    known = {
        name: about["default"]
        for name, about in template["variables"]["properties"].items()
        if "default" in about
    }
    given = {
        "name": "nights",
        "command": ["python", "-m", "prefect.engine"],
        "env": [{"name": "PREFECT_API_URL", "value": "http://server:4200/api"}],
        "labels": {"app": "spherescore"},
    }
    values = apply_values(template["job_configuration"], known | given)
    assert isinstance(values, dict)
    assert "{{" not in json.dumps(values)
    return values


def test_jobs_of_kubernetes_are_valid_and_have_no_rights() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    manifest = rendered("kubernetes")["job_manifest"]
    validate.validate(manifest, "1.31", strict=True)
    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert manifest["spec"]["backoffLimit"] == 0, "the store knows better than a blind retry"
    with pytest.raises(Exception, match="parallelismm"):
        manifest["spec"]["parallelismm"] = 1
        validate.validate(manifest, "1.31", strict=True)


def test_containers_of_docker_have_no_rights() -> None:
    made = rendered("docker")
    assert made["container_create_kwargs"]["read_only"] and not made["privileged"]
    assert made["container_create_kwargs"]["user"] == "10001:10001"


def test_the_image_is_without_fault_and_not_root() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    linter = linter or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, HERE / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (HERE / "Dockerfile").read_text()
    assert "USER 10001" in text and "-c constraints.txt" in text


def test_the_compose_file_publishes_on_loopback_only() -> None:
    services = YAML(typ="safe").load((HERE / "deploy" / "compose.yaml").read_text())["services"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    assert services["worker"]["read_only"] and services["server"]["read_only"]
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("docker-compose is not installed: the file was not read by it")
    known = {"DATABASE_PASSWORD": "x", "PREFECT_AUTH": "a:b", "PATH": "/usr/bin:/bin"}
    command = [compose, "-f", str(HERE / "deploy" / "compose.yaml"), "config", "-q"]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_deployments_of_the_file_are_those_that_are_looked_for() -> None:
    file = YAML(typ="safe").load(FILE.read_text())
    wanted = Wanted(config=Path("demo.toml"), file=FILE)
    environment = wanted.environment()
    names = [
        one["name"].replace("{{ $SPHERESCORE_NAME }}", wanted.name) for one in file["deployments"]
    ]
    assert sorted(names) == sorted(name.partition("/")[2] for name in wanted.deployments)
    variables = {word for word in FILE.read_text().split() if word[:1] == "$" and word[1:]}
    assert {word[1:] for word in variables} <= set(environment)
    scheduled = {
        one["name"].rpartition("-")[2] for one in file["deployments"] if "schedules" in one
    }
    assert scheduled == {"nightly", "weekly"}
