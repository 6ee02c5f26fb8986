"""Workers as pods, by the Dask operator: a DaskCluster made with a stage and deleted with it.

The resource is plain data, made here and handed to Kubernetes by kr8s, which finds its way as
kubectl does; `python -m flows.cluster.kubernetes CONFIG` prints it. The operator replaces pods that
are lost. Its own way of growing and shrinking asks schedulers in the clear, so the size is fixed.
"""

import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.cluster.dask_settings import WORKER_ENVIRONMENT
from flows.config.schema import Cluster
from flows.config.strict import ConfigError
from flows.errors import WorkersLost

LOGGER = logging.getLogger("spherescore")
PORT = 8786
CERTIFICATES = "/etc/spherescore/tls"
OUR_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # in a pod


@contextmanager
def dask_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The DaskCluster of a configuration under a name of its own, gone when the block is left.

    The name is new each time: what a killed run has left behind is in nobody's way. In a pod the
    cluster belongs to that pod, and Kubernetes removes it when the pod is removed.

    Returns:
        The configuration with that name.
    Raises:
        ConfigError: If kr8s is not installed.
        WorkersLost: If Kubernetes does not make it, in its words.
    """
    try:
        import kr8s
        from kr8s.objects import new_class
    except ImportError as error:
        raise ConfigError(
            'cluster.kind "kubernetes" needs kr8s: pip install "spherescore[kubernetes]"'
        ) from error

    there = cluster.kubernetes
    name = f"{there.name}-{uuid.uuid4().hex[:8]}"
    made = replace(cluster, kubernetes=replace(there, name=name))
    try:
        api = kr8s.api(namespace=there.namespace)
        wanted = resource(made)
        wanted["metadata"]["ownerReferences"] = _owner(api, there.namespace)
        kind = new_class("DaskCluster", "kubernetes.dask.org/v1", asyncio=False)
        created = kind(wanted, api=api)
        created.create()
    except Exception as error:
        raise WorkersLost(
            f"Kubernetes did not make the DaskCluster {name} in namespace {there.namespace}: "
            f"{_words(error)}; nothing was started (docs/clusters.md says what it needs)"
        ) from error
    try:
        yield made
    finally:
        try:
            created.delete()
        except kr8s.NotFoundError:
            pass
        except Exception as error:  # what the stage has published stands
            LOGGER.warning(
                "the DaskCluster %s could not be deleted (%s) and its pods go on: kubectl delete "
                "daskcluster.kubernetes.dask.org %s --namespace %s",
                *(name, _words(error), name, there.namespace),
            )


def _owner(api: Any, namespace: str) -> list[dict[str, Any]]:
    """The pod of this run as the owner of what it makes; nothing outside of that namespace."""
    from kr8s.objects import Pod

    if not OUR_NAMESPACE.exists() or OUR_NAMESPACE.read_text().strip() != namespace:
        return []
    name = os.environ.get("HOSTNAME", "")
    try:
        pod = Pod({"metadata": {"name": name, "namespace": namespace}}, api=api)
        pod.refresh()
    except Exception as error:
        LOGGER.warning(
            "the pod %s cannot be read (%s): if this run is killed, its Dask cluster stays until "
            "somebody deletes it",
            *(name, _words(error)),
        )
        return []
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.metadata["uid"]}
    return [owner]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def address_of(cluster: Cluster) -> str:
    """The address of the scheduler for pods of the same Kubernetes."""
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
                "command": [*command, *tls],  # whatever the image starts by itself
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


if __name__ == "__main__":
    from flows.config.schema import read_config

    print(json.dumps(resource(read_config(sys.argv[1]).cluster), indent=2))
