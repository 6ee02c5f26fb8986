"""The resource that the Dask operator gets. No Kubernetes ran it: pods are validated by its schema,
its API is a small server, and the scheduler behind it one on loopback."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    said = " ".join(worker["command"])
    assert made["spec"]["worker"]["replicas"] == 3
    assert "tls://spherescore-scheduler.default.svc:8786" in said
    for option in ("--nthreads 1", "--resources GPU=1", "--local-directory /scratch"):
        assert option in said
    for container in (worker, scheduler):
        assert "--tls-key /etc/spherescore/tls/key.pem" in " ".join(container["command"])
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


class Api(ThreadingHTTPServer):
    """As much of Kubernetes as makes, shows and deletes objects, and may refuse to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.refuses: dict[str, int] = {}  # method: status

    @property
    def clusters(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.objects if "/daskclusters/" in path]


class _Answers(BaseHTTPRequestHandler):
    server: Api

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, objects = self.path.partition("?")[0].rstrip("/"), self.server.objects
        self.server.asked.append(f"{self.command} {path}")
        if status := self.server.refuses.get(self.command):
            self._say(status, {"kind": "Status", "message": f"{self.command} is forbidden"})
        elif path == "/version":
            self._say(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        elif self.command == "POST":
            made = json.loads(body)
            if f"{path}/{made['metadata']['name']}" in objects:
                self._say(409, {"kind": "Status", "message": "already exists"})
                return
            objects[f"{path}/{made['metadata']['name']}"] = made
            self._say(201, made)
        elif path not in objects:
            self._say(404, {"kind": "Status", "message": "not found"})
        else:
            self._say(200, objects.pop(path) if self.command == "DELETE" else objects[path])

    do_GET = do_POST = do_DELETE = _answer

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        said = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for all tests: kr8s remembers the first that it met."""
    config = tmp_path_factory.mktemp("kube") / "config"
    with Api() as serving, pytest.MonkeyPatch.context() as patch:
        place = {"cluster": {"server": f"http://127.0.0.1:{serving.server_port}"}, "name": "here"}
        known = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [place],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "one", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "one",
        }
        config.write_text(json.dumps(known))
        patch.setenv("KUBECONFIG", str(config))
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def api(serving: Api) -> Api:
    serving.objects.clear()
    serving.refuses.clear()
    return serving


@contextmanager
def a_scheduler(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    certificates = Certificates(directory / "tls")
    with dask_cluster(directory / "cluster", workers=1, tls=certificates) as started:
        monkeypatch.setattr(kubernetes, "address_of", lambda cluster: started.address)
        yield asking(tls=Tls(**certificates.table), patience=300.0)


def test_a_cluster_is_made_used_and_deleted(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch, quiet: Progress
) -> None:
    with (
        a_scheduler(tmp_path, monkeypatch) as cluster,
        remote_client(cluster, tmp_path / "scratch") as client,
    ):
        (name,) = api.clusters
        assert map_units(client, abs, [-1, -2], quiet) == [1, 2]
    assert name.startswith("spherescore-") and api.clusters == []


def test_what_a_killed_run_left_blocks_nobody(api: Api) -> None:
    with kubernetes.dask_cluster(asking()) as first, kubernetes.dask_cluster(asking()) as second:
        assert first.kubernetes.name != second.kubernetes.name
        assert kubernetes.address_of(first) != kubernetes.address_of(second)
        assert sorted(api.clusters) == sorted([first.kubernetes.name, second.kubernetes.name])


def test_a_cluster_that_cannot_be_deleted_fails_nothing(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("spherescore"), "propagate", True)
    with kubernetes.dask_cluster(asking()) as made:
        api.refuses["DELETE"] = 403
    assert f"kubectl delete daskcluster.kubernetes.dask.org {made.kubernetes.name}" in caplog.text
    assert "DELETE is forbidden" in caplog.text


def test_a_cluster_of_a_pod_goes_with_that_pod(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "namespace").write_text("default")
    monkeypatch.setattr(kubernetes, "OUR_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("HOSTNAME", "nights-abc")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nights-abc", "uid": "u-1"}}
    api.objects["/api/v1/namespaces/default/pods/nights-abc"] = pod
    with kubernetes.dask_cluster(asking()):
        (made,) = [one for path, one in api.objects.items() if "/daskclusters/" in path]
    (owner,) = made["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "nights-abc", "uid": "u-1"}


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
    monkeypatch.setattr(kubernetes, "dask_cluster", nullcontext)
    lost = pytest.raises(WorkersLost, match="unit 3: its workers died")
    with lost, remote._on_kubernetes(asking(), tmp_path):
        raise WorkersLost("unit 3: its workers died")
    assert met == [1]


def test_what_kubernetes_refuses_is_said_in_its_words(api: Api) -> None:
    api.refuses["POST"] = 403
    refused = pytest.raises(WorkersLost, match="POST is forbidden")
    with refused, kubernetes.dask_cluster(asking()):
        pass
