"""A Dask cluster that is not the run's own processes: met at an address, checked, and left.

Whoever reaches a scheduler runs code on all its workers as the user who started them. So a
network is crossed with TLS alone: tcp:// is for loopback, and there is no key that allows more.
"""

import os
import re
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows.cluster.dask_settings import DASK_CONFIG, UNIT_SECONDS
from flows.cluster.worker_setup import DECIDE_BYTES, OtherCode, installation
from flows.config.schema import ADDRESS, Cluster, ConfigError
from flows.errors import WorkersLost
from flows.processes.network_boundary import Refused, is_loopback

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

CONNECT_SECONDS = 10.0
SCHEDULER = "SPHERESCORE_SCHEDULER"  # address of the scheduler of `spherescore up`


def placed(cluster: Cluster) -> Cluster:
    """The cluster with the address of the environment, where the configuration leaves it out.

    Raises:
        ConfigError: If neither has one.
    """
    if cluster.kind != "address" or cluster.address:
        return cluster
    address = os.environ.get(SCHEDULER, "")
    if not re.fullmatch(ADDRESS, address):
        raise ConfigError(
            f"cluster.address is left out, and {SCHEDULER} in the environment is {address!r}; "
            "one of them has to be an address like tls://host:8786 (`spherescore up` sets it)"
        )
    return replace(cluster, address=address)


def refuse_unsafe(cluster: Cluster) -> None:
    """Let nobody use a scheduler in the clear but on loopback.

    Raises:
        Refused: If the address is tcp:// and leaves this machine.
    """
    if urlsplit(cluster.address).scheme == "tcp" and not is_loopback(cluster.address):
        raise Refused(
            f"cluster.address {cluster.address} is not encrypted and not on this machine: "
            "whoever reaches such a scheduler runs code on its workers. Start it with TLS and "
            "write tls:// (docs/clusters.md says how)"
        )


@contextmanager
def remote_client(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    """A client of a cluster that is met or begun, once it has a worker that we can use.

    Args:
        scratch: Directory below the run's root, by which is seen whether workers see that.
    Raises:
        Refused: If the way there is not safe.
        WorkersLost: If there is no scheduler, or no worker within `cluster.patience`.
        OtherCode: If workers are of another installation.
    """
    import dask

    refuse_unsafe(cluster)
    given = {
        "distributed.scheduler.no-workers-timeout": f"{cluster.patience}s",
        UNIT_SECONDS: 60 * cluster.unit_minutes,
        "distributed.deploy.lost-worker-timeout": "15s",  # then its job is given up and replaced
    }
    with (
        dask.config.set(DASK_CONFIG | given),
        _CLIENTS[cluster.kind](cluster, scratch) as client,
    ):
        meet(client, cluster, scratch)
        yield client


@contextmanager
def _at_address(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    from distributed import Client

    security = security_of(cluster)
    try:
        client = Client(
            cluster.address, security=security, set_as_default=False, timeout=CONNECT_SECONDS
        )
    except (OSError, TimeoutError) as error:
        raise _unmet(cluster, error) from error
    with client:
        yield client


def _on_slurm(cluster: Cluster, scratch: Path) -> AbstractContextManager["Client"]:
    from flows.cluster.slurm import slurm_client

    return slurm_client(cluster, scratch)


@contextmanager
def _on_kubernetes(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    from flows.cluster.kubernetes import address_of, dask_cluster

    placed = replace(cluster, kind="address", address=address_of(cluster), gpus=0, scratch="")
    security_of(placed)  # before anything is made
    with dask_cluster(cluster) as made, ExitStack() as stack:
        placed = replace(placed, address=address_of(made))
        deadline = time.monotonic() + cluster.patience
        while True:
            try:
                client = stack.enter_context(_at_address(placed, scratch))
                break
            except WorkersLost:  # pods take their time
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
        yield client


_CLIENTS = {"address": _at_address, "kubernetes": _on_kubernetes, "slurm": _on_slurm}


def security_of(cluster: Cluster) -> "Security | None":
    """The certificates of an encrypted scheduler, and None for one on loopback in the clear.

    Raises:
        Refused: If a file is missing or nothing says where it is.
    """
    from dask import config
    from distributed.security import Security

    if urlsplit(cluster.address).scheme == "tcp":
        return None
    files = {
        "ca": ("tls_ca_file", "distributed.comm.tls.ca-file"),
        "cert": ("tls_client_cert", "distributed.comm.tls.client.cert"),
        "key": ("tls_client_key", "distributed.comm.tls.client.key"),
    }
    given: dict[str, str] = {}
    for name, (argument, setting) in files.items():
        place = getattr(cluster.tls, name) or config.get(setting, None)
        if not place:
            variable = "DASK_" + setting.upper().replace(".", "__").replace("-", "_")
            raise Refused(
                f"{cluster.address} needs certificates: give cluster.tls.{name}, or {variable} in "
                "the environment (docs/clusters.md says how they are made)"
            )
        if not os.access(place, os.R_OK):
            raise Refused(f"cluster.tls.{name}: {place} cannot be read")
        given[argument] = str(place)
    return Security(require_encryption=True, **given)


def meet(client: "Client", cluster: Cluster, scratch: Path) -> None:
    """Wait for a worker, and see whether all that are there can do the units of this run."""
    try:
        client.wait_for_workers(1, timeout=cluster.patience)
    except TimeoutError as error:
        raise WorkersLost(
            f"{_where(client)} has had no worker for {cluster.patience:.0f} s; start some, or "
            "raise cluster.patience, and run again; nothing was started"
        ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"]
    threads = {name: worker["nthreads"] for name, worker in workers.items()}
    if wrong := {name: number for name, number in threads.items() if number != 1}:
        name, number = next(iter(wrong.items()))
        raise OtherCode(
            f"{len(wrong)} of {len(workers)} workers, {name} among them, have {number} threads; "
            "units need a process each: start them with --nthreads 1 (and --nworkers)"
        )
    run, mark = installation(), scratch / f"seen-{uuid.uuid4().hex}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        seen: dict[str, Mapping[str, Any]] = client.run(
            _look_from(run.directory, str(mark)), on_error="return"
        )
    finally:
        mark.unlink()
    for name, theirs in sorted(seen.items()):
        if not isinstance(theirs, Mapping):
            raise OtherCode(f"the worker {name} cannot be asked for its installation: {theirs}")
        if different := run.differs_from(theirs["versions"]):
            raise OtherCode(
                f"the worker {name} has {different}; install the same version there, and start "
                "its workers again"
            )
        if not theirs["mark"]:
            raise WorkersLost(
                f"the worker {name} does not see {mark.parent.absolute()}; run.root has to lie on "
                "a disk that all workers share, at the same path"
            )


def _look_from(directory: str, mark: str) -> Any:
    # A function inside another is sent whole: workers without this package can answer, too.
    def look() -> dict[str, Any]:
        import os

        try:
            from flows.cluster.worker_setup import versions
        except ImportError:
            from importlib.metadata import PackageNotFoundError, version

            found = {}
            for name in DECIDE_BYTES:
                with suppress(PackageNotFoundError):
                    found[name] = version(name).partition("+")[0]
            return {"versions": found, "mark": True}
        return {"versions": dict(versions()), "mark": os.path.exists(os.path.join(directory, mark))}

    return look


def _unmet(cluster: Cluster, error: BaseException) -> RuntimeError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or "CERTIFICATE" in str(cause).upper():
            return Refused(
                f"{cluster.address} and this run do not trust each other ({cause}); both need "
                "certificates of one authority, cluster.tls.ca"
            )
        cause = cause.__cause__ or cause.__context__
    return WorkersLost(
        f"no scheduler answers at {cluster.address} within {CONNECT_SECONDS:.0f} s ({error}); "
        "start it, or write where it is in cluster.address; nothing was started"
    )


def _where(client: "Client") -> str:
    return client.scheduler.address if client.scheduler is not None else "the cluster"
