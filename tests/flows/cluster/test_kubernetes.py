"""The resource that the Dask operator gets. No Kubernetes ran it: pods are validated by its schema,
kubectl is a script, and the scheduler behind it is one on loopback."""

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows.cluster import kubernetes, remote
from flows.cluster.map_units import map_units
from flows.cluster.remote import remote_client
from flows.config.schema import Cluster, ConfigError, Kubernetes, Tls
from flows.errors import WorkersLost
from flows.progress import Progress
from tests.services import Certificates, dask_cluster


def asking(**options: Any) -> Cluster:
    there = Kubernetes(image="registry/spherescore:1", claim="runs", secret="dask-tls")
    given = {"kind": "kubernetes", "workers": 3, "memory": "4GiB", "kubernetes": there}
    return Cluster(**given | options)


@pytest.mark.parametrize("gpus", [0, 1])
def test_pods_and_service_keep_to_the_schema(gpus: int) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    made = kubernetes.resource(asking(gpus=gpus))
    spec = made["spec"]
    for part in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}}
        validate(pod | {"spec": spec[part]["spec"]}, "1.37", strict=True)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}}
    validate(service | {"spec": spec["scheduler"]["service"]}, "1.37", strict=True)
    wrong = spec["worker"]["spec"] | {"restartPolice": "Never"}
    with pytest.raises(Exception, match="restartPolice"):
        validate(pod | {"spec": wrong}, "1.37", strict=True)


def test_workers_are_processes_of_one_thread_behind_tls() -> None:
    made = kubernetes.resource(asking(gpus=1, scratch="/scratch"))
    (worker,) = made["spec"]["worker"]["spec"]["containers"]
    (scheduler,) = made["spec"]["scheduler"]["spec"]["containers"]
    said = " ".join(worker["args"])
    assert made["spec"]["worker"]["replicas"] == 3
    assert "tls://spherescore-scheduler.default.svc:8786" in said
    for option in ("--nthreads 1", "--resources GPU=1", "--local-directory /scratch"):
        assert option in said
    for container in (worker, scheduler):
        assert "--tls-key /etc/spherescore/tls/key.pem" in " ".join(container["args"])
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    limits = {"cpu": "1", "memory": str(4 << 30), "nvidia.com/gpu": "1"}
    assert worker["resources"]["limits"] == limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kubernetes": Kubernetes(image="x", claim="y")}, r"cluster\.kubernetes\.secret"),
        ({"most": 8}, r"cluster\.most: expected nothing"),
        ({"memory": "auto"}, r"cluster\.memory: expected a size"),
    ],
)
def test_what_pods_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asking(**options)


def test_a_cluster_is_made_used_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Progress
) -> None:
    certificates = Certificates(tmp_path / "tls")
    script = tmp_path / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat > {tmp_path}/$1.json\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    cluster = asking(tls=Tls(**certificates.table), patience=300.0)
    with dask_cluster(tmp_path / "cluster", workers=1, tls=certificates) as started:
        monkeypatch.setattr(kubernetes, "address_of", lambda cluster: started.address)
        with remote_client(cluster, tmp_path / "scratch") as client:
            assert map_units(client, abs, [-1, -2], quiet) == [1, 2]
    assert json.loads((tmp_path / "create.json").read_text())["kind"] == "DaskCluster"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["create", "delete"]
    assert "spherescore --namespace default" in asked[1]


def test_an_error_of_the_body_that_looks_like_lost_workers_is_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []

    @contextmanager
    def one(*arguments: Any) -> Iterator[Any]:
        met.append(1)
        yield "a client"

    monkeypatch.setattr(remote, "_at_address", one)
    monkeypatch.setattr(remote, "security_of", lambda cluster: None)
    monkeypatch.setattr(kubernetes, "dask_cluster", lambda cluster: nullcontext())
    lost = pytest.raises(WorkersLost, match="unit 3: its workers died")
    with lost, remote._on_kubernetes(asking(), tmp_path):
        raise WorkersLost("unit 3: its workers died")
    assert met == [1]


def test_what_kubectl_refuses_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "kubectl"
    script.write_text('#!/bin/sh\necho "no matches for kind DaskCluster" >&2\nexit 1\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    refused = pytest.raises(WorkersLost, match="kubectl create: no matches for kind DaskCluster")
    with refused, kubernetes.dask_cluster(asking()):
        pass
