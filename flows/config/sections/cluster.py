"""[cluster]: the Dask workers of a run, here, in jobs of Slurm or in pods of Kubernetes."""

import re
from dataclasses import field
from typing import Literal

from flows.config.sections.checks import expanded, require, set_values
from flows.config.strict import section

__all__ = ["ADDRESS", "Cluster", "Kubernetes", "Slurm", "Tls"]

ADDRESS = r"(tcp|tls)://.+:\d+"  # of a Dask scheduler; tcp on loopback only


@section
class Tls:
    """Files of a cluster's own certificate authority; what is left out, Dask's settings say."""

    ca: str = ""
    """Certificate of the authority, a file."""
    cert: str = ""
    """Certificate of the run, a file."""
    key: str = ""
    """Key of that certificate, a file."""

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            set_values(self, **{name: expanded(getattr(self, name), f"cluster.tls.{name}")})


@section
class Slurm:
    """What jobs ask Slurm for, besides memory and GPUs."""

    queue: str = ""
    """The partition."""
    account: str = ""
    """Whose budget it is."""
    walltime: str = "04:00:00"
    """Longest time of a job, such as 04:00:00."""
    per_job: int = 1
    """Workers in one job."""
    interface: str = ""
    """Network of scheduler and workers, such as ib0."""
    directives: tuple[str, ...] = ()
    """More options of sbatch."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the workers start."""

    def __post_init__(self) -> None:
        require(self.per_job >= 1, "cluster.slurm.per_job", self.per_job, "at least 1")


@section
class Kubernetes:
    """Where pods run and what they see; names of objects that are there before the run."""

    image: str = ""
    """With this package, the same as that of the run."""
    namespace: str = "default"
    """Where the pods are."""
    claim: str = ""
    """A persistent volume claim that all pods may write."""
    mount: str = "/data"
    """Where that is in every pod."""
    secret: str = ""
    """With ca.pem, cert.pem and key.pem."""
    name: str = "spherescore"
    """Of the DaskCluster."""


@section
class Cluster:
    """The Dask cluster of a run: processes of one thread, here or elsewhere (docs/clusters.md)."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = "local"
    """Where the workers are."""
    workers: int = 2
    """Number of workers."""
    most: int | None = None
    """Up to so many workers while there is work for them."""
    memory: str = "auto"
    """Memory of each worker, such as "2GiB"; auto shares out what there is."""
    unit_minutes: float = 30.0
    """A unit that takes longer is taken for hung."""
    address: str = ""
    """Of a scheduler that runs; if empty, that of SPHERESCORE_SCHEDULER."""
    tls: Tls = field(default_factory=Tls)
    """Files of the cluster's certificate authority."""
    patience: float = 60.0
    """Seconds without any worker, after which the run gives up."""
    gpus: int = 0
    """GPUs of each worker."""
    scratch: str = ""
    """Directory of each host where workers spill."""
    slurm: Slurm = field(default_factory=Slurm)
    """What jobs of Slurm ask for."""
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    """What pods of Kubernetes are made of."""

    def __post_init__(self) -> None:
        set_values(self, scratch=expanded(self.scratch, "cluster.scratch"))
        require(1 <= self.workers <= 10_000, "cluster.workers", self.workers, "1 to 10,000")
        known = self.unit_minutes > 0
        require(known, "cluster.unit_minutes", self.unit_minutes, "a positive number")
        spelled = re.fullmatch(r"auto|(?!0+(\.0+)?\s*[KMGT])\d+(\.\d+)?\s*[KMGT]i?B", self.memory)
        require(spelled is not None, "cluster.memory", self.memory, 'a size like "2GiB" or "auto"')
        require(self.patience > 0, "cluster.patience", self.patience, "a positive number")
        if self.kind == "address":
            known = self.address == "" or re.fullmatch(ADDRESS, self.address) is not None
            require(known, "cluster.address", self.address, "an address like tls://host:8786")
        else:
            none = f'nothing where cluster.kind is "{self.kind}" (only "address" takes one)'
            require(not self.address, "cluster.address", self.address, none)
        if self.most is not None:
            least = self.most >= self.workers
            require(least, "cluster.most", self.most, "at least cluster.workers")
        started = self.kind not in ("local", "address")
        for name in ("most", "gpus", "scratch"):
            value = getattr(self, name)
            takers = '(only "slurm" and "kubernetes" take it)'
            kinds = f'nothing where cluster.kind is "{self.kind}" {takers}'
            require(started or not value, f"cluster.{name}", value, kinds)
        if started:
            said = self.memory != "auto"
            require(said, "cluster.memory", self.memory, "a size, which is what jobs ask for")
        if self.kind == "kubernetes":
            require(self.most is None, "cluster.most", self.most, "nothing: its size is fixed")
            for name in ("image", "claim", "secret"):
                value = getattr(self.kubernetes, name)
                require(value != "", f"cluster.kubernetes.{name}", value, "a name")
        alone = self.gpus == 0 or self.slurm.per_job == 1
        require(alone, "cluster.slurm.per_job", self.slurm.per_job, "1 where workers have GPUs")
