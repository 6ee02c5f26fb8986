"""What is shipped for other machines, looked at offline: by schemas, a linter, Prefect itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed.cli import dask_scheduler, dask_worker
from prefect.utilities.templating import apply_values
from ruamel.yaml import YAML

from flows.cluster.dask_settings import WORKER_ENVIRONMENT
from flows.cluster.remote import placed, refuse_unsafe
from flows.config.schema import Cluster
from flows.deployments.definitions import definitions
from flows.deployments.pool import job_template
from flows.deployments.wanted import Wanted, mark_of
from tests.small import small_table

HERE = Path(__file__).parents[1]
COMPOSE = HERE / "deploy" / "compose.yaml"


def rendered(kind: Any) -> dict[str, Any]:
    """What a worker makes of a pool's template, with the defaults and a run's own values."""
    template = job_template(kind)
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


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(COMPOSE.read_text())
    return loaded


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
    services = compose()["services"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    assert services["worker"]["read_only"] and services["server"]["read_only"]
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: the file was not read by it")
    known = {"DATABASE_PASSWORD": "x", "PREFECT_AUTH": "a:b", "PATH": "/usr/bin:/bin"}
    command = [program, "-f", str(COMPOSE), "config", "-q"]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_container_says_a_whole_command() -> None:
    """So that `docker compose run worker COMMAND`, Prefect's workers and the Dask operator can."""
    assert not [
        line for line in (HERE / "Dockerfile").read_text().split("\n") if "ENTRY" in line[:6]
    ]
    ours = [one for one in compose()["services"].values() if "spherescore" in one["image"]]
    assert len(ours) == 4
    for service in ours:
        assert "entrypoint" not in service
        assert service["command"][0] in ("prefect", "dask")


def test_the_dask_cluster_of_the_containers_is_reached_by_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = compose()["services"]
    address = services["worker"]["environment"]["SPHERESCORE_SCHEDULER"]
    monkeypatch.setenv("SPHERESCORE_SCHEDULER", address)
    refuse_unsafe(placed(Cluster(kind="address")))
    listening = dask_scheduler.main.make_context("scheduler", services["scheduler"]["command"][2:])
    working = dask_worker.main.make_context("worker", services["dask-workers"]["command"][2:])
    assert f"tcp://{listening.params['host']}:{listening.params['port']}" == address
    assert working.params["scheduler"] == address and working.params["nthreads"] == 1
    for name in ("worker", "dask-workers"):
        assert services[name]["network_mode"] == "service:scheduler"
    assert services["dask-workers"]["environment"] == WORKER_ENVIRONMENT


def test_containers_of_a_docker_pool_find_the_network_and_the_disk_of_the_others() -> None:
    file, pool = compose(), rendered("docker")
    assert pool["networks"] == [file["networks"]["default"]["name"]]
    assert [volume.partition(":")[0] for volume in pool["volumes"]] == [
        file["volumes"]["data"]["name"]
    ]


def test_rights_of_kubernetes_are_of_the_account_that_jobs_have() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    path = HERE / "deploy" / "kubernetes" / "dask-clusters.yaml"
    account, role, binding = YAML(typ="safe").load_all(path.read_text())
    for one in (account, role, binding):
        validate.validate(one, "1.31", strict=True)
    pod = rendered("kubernetes")["job_manifest"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_all_deployments_are_looked_for_and_found_by_their_modules(
    write_config: Any, tmp_path: Path
) -> None:
    wanted = Wanted(config=Path(write_config(small_table(tmp_path))))
    made = definitions(wanted)
    assert sorted(one.full_name for one in made) == sorted(wanted.deployments)
    assert {str(one.entrypoint).rpartition(".")[0] for one in made} == {
        "flows.deployments.flows",
        "flows.deployments.probe",
    }
    scheduled = {one.name.rpartition("-")[2] for one in made if one.schedules}
    assert scheduled == {"nightly", "weekly"}
    assert {one.work_queue_name for one in made if one.name != "probe"} == {wanted.queue}


def test_each_root_has_a_mark_of_its_own() -> None:
    roots = ["/a/runs/demo", "/b/runs/demo", "s3://a/demo", "/a/runs/Demo", "/a/runs/demo-1"]
    assert len({mark_of(root) for root in roots}) == len(roots)
    assert mark_of("/a/runs/demo/") == mark_of("/a/runs/demo")
    assert all(set(mark_of(root)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for root in roots)
