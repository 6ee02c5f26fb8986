"""Workers as pods, by the Dask operator: a DaskCluster made with a stage and deleted with it.

The resource is plain data, made here and handed to `kubectl`; `python -m flows.cluster.kubernetes
CONFIG` prints it. The operator replaces pods that are lost. Its own way of growing and shrinking
asks schedulers in the clear, so the size is fixed.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.cluster.dask_settings import WORKER_ENVIRONMENT
from flows.config.schema import Cluster
from flows.errors import WorkersLost

PORT = 8786
CERTIFICATES = "/etc/spherescore/tls"
COMMAND_SECONDS = 120.0


@contextmanager
def dask_cluster(cluster: Cluster) -> Iterator[None]:
    """The DaskCluster of a configuration, gone when the block is left.

    Raises:
        WorkersLost: If there is no kubectl, or in its words what it refuses.
    """
    if shutil.which("kubectl") is None:
        raise WorkersLost('there is no kubectl here, with which cluster.kind "kubernetes" works')
    there = cluster.kubernetes
    _kubectl(["create", "-f", "-"], json.dumps(resource(cluster)))
    try:
        yield
    finally:
        where = ["--namespace", there.namespace, "--ignore-not-found"]
        _kubectl(["delete", "daskcluster.kubernetes.dask.org", there.name, *where], None)


def address_of(cluster: Cluster) -> str:
    """Of the scheduler, for pods of the same Kubernetes."""
    return f"tls://{cluster.kubernetes.name}-scheduler.{cluster.kubernetes.namespace}.svc:{PORT}"


def resource(cluster: Cluster) -> dict[str, Any]:
    """The DaskCluster as plain values: one scheduler, and workers of one thread."""
    there = cluster.kubernetes
    worker = [
        *("dask", "worker", address_of(cluster), "--name", "$(DASK_WORKER_NAME)"),
        *("--nthreads", "1", "--memory-limit", _memory(cluster), "--no-dashboard"),
        *("--local-directory", cluster.scratch or "/tmp"),
    ]
    if cluster.gpus:
        worker += ["--resources", f"GPU={cluster.gpus}"]
    scheduler = ["dask", "scheduler", "--protocol", "tls", "--port", str(PORT), "--no-dashboard"]
    selector = {"dask.org/cluster-name": there.name, "dask.org/component": "scheduler"}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": there.name, "namespace": there.namespace},
        "spec": {
            "worker": {
                "replicas": cluster.workers,
                "spec": _pod(cluster, "worker", worker, _worker_needs(cluster)),
            },
            "scheduler": {
                "spec": _pod(cluster, "scheduler", scheduler, {"cpu": "1", "memory": "2Gi"}),
                "service": {
                    "type": "ClusterIP",
                    "selector": selector,
                    "ports": [
                        {"name": "tcp-comm", "protocol": "TCP", "port": PORT, "targetPort": PORT}
                    ],
                },
            },
        },
    }


def _pod(cluster: Cluster, name: str, command: list[str], needs: dict[str, str]) -> dict[str, Any]:
    there = cluster.kubernetes
    tls = [
        part
        for option, file in (("ca-file", "ca"), ("cert", "cert"), ("key", "key"))
        for part in (f"--tls-{option}", f"{CERTIFICATES}/{file}.pem")
    ]
    return {
        "restartPolicy": "Never" if name == "worker" else "Always",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": name,
                "image": there.image,
                "args": [*command, *tls],
                "workingDir": there.mount,
                "env": [{"name": n, "value": v} for n, v in WORKER_ENVIRONMENT.items()],
                "resources": {"requests": needs, "limits": needs},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "data", "mountPath": there.mount},
                    {"name": "tls", "mountPath": CERTIFICATES, "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": there.claim}},
            {"name": "tls", "secret": {"secretName": there.secret}},
        ],
    }


def _worker_needs(cluster: Cluster) -> dict[str, str]:
    needs = {"cpu": "1", "memory": _memory(cluster)}
    return needs | ({"nvidia.com/gpu": str(cluster.gpus)} if cluster.gpus else {})


def _memory(cluster: Cluster) -> str:
    from dask.utils import parse_bytes

    return str(parse_bytes(cluster.memory))


def _kubectl(command: list[str], said: str | None) -> None:
    try:
        subprocess.run(
            ["kubectl", *command],
            input=said,
            check=True,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkersLost(f"kubectl has not answered for {COMMAND_SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise WorkersLost(f"kubectl {command[0]}: {said}") from error


if __name__ == "__main__":
    from flows.config.schema import read_config

    print(json.dumps(resource(read_config(sys.argv[1]).cluster), indent=2))
