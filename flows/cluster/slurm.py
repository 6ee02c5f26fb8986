"""Workers as jobs of Slurm, by dask-jobqueue: begun with a stage, replaced if lost, ended with it.

The scheduler lives in the process of the run, and all connections are encrypted with certificates
that are made for this cluster and forgotten with it.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flows.cluster.dask_settings import WORKER_ENVIRONMENT
from flows.config.schema import Cluster
from flows.config.strict import ConfigError
from flows.errors import WorkersLost

if TYPE_CHECKING:
    from distributed import Client

SUBMIT_SECONDS = 60.0  # that a command of Slurm may take; some wait for ever


@contextmanager
def slurm_client(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    """A client whose workers are jobs, between `cluster.workers` and `cluster.most` of them.

    Args:
        scratch: A directory that all hosts share, for the certificates and the logs of the jobs.
    Raises:
        WorkersLost: If dask-jobqueue or Slurm is not there, or Slurm would not take the jobs.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise ConfigError(
            'cluster.kind "slurm" needs dask-jobqueue: pip install "spherescore[slurm]"'
        ) from error
    from distributed import Client
    from distributed.security import Security

    if shutil.which("sbatch") is None:
        raise WorkersLost("there is no sbatch here; start the run on a login or submit host")
    scratch.mkdir(parents=True, exist_ok=True)
    per_job = cluster.slurm.per_job
    with ExitStack() as stack:
        certificates = stack.enter_context(
            TemporaryDirectory(dir=scratch.absolute(), prefix="tls-", ignore_cleanup_errors=True)
        )
        jobs = SLURMCluster(
            **job_options(cluster, scratch.absolute()),
            security=Security.temporary(),
            shared_temp_directory=certificates,
        )
        stack.callback(_close_files, jobs)
        stack.enter_context(jobs)
        _try_to_submit(jobs.job_script(), scratch)
        # Not scale(): that never replaces a job that was lost.
        jobs.adapt(
            minimum_jobs=ceil(cluster.workers / per_job),
            maximum_jobs=ceil((cluster.most or cluster.workers) / per_job),
        )
        yield stack.enter_context(Client(jobs, set_as_default=False, timeout=30))


def _close_files(jobs: Any) -> None:
    """Close the certificates' files now; Dask would do so after their directory is removed."""
    for file in vars(jobs).values():
        if hasattr(file, "file") and hasattr(file, "close"):
            file.close()


def job_options(cluster: Cluster, shared: Path) -> dict[str, Any]:
    """What dask-jobqueue is told: jobs of `per_job` processes of one thread."""
    from dask.utils import parse_bytes

    slurm, per_job = cluster.slurm, cluster.slurm.per_job
    directives = list(slurm.directives)
    workers = ["--no-dashboard"]
    if cluster.gpus:
        directives.append(f"--gres=gpu:{cluster.gpus}")
        workers += ["--resources", f"GPU={cluster.gpus}"]
    limits = [f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()]
    return {
        "cores": per_job,
        "processes": per_job,
        "memory": per_job * parse_bytes(cluster.memory),
        "queue": slurm.queue or None,
        "account": slurm.account or None,
        "walltime": slurm.walltime,
        "interface": slurm.interface or None,
        "job_extra_directives": directives,
        "job_script_prologue": [*limits, *slurm.prologue],
        "worker_extra_args": workers,
        "local_directory": cluster.scratch or "${TMPDIR:-/tmp}",
        "log_directory": str(shared / "slurm"),
        "job_name": "spherescore",
        "scheduler_options": {"dashboard": False},
        "silence_logs": "critical",
    }


def _try_to_submit(script: str, directory: Path) -> None:
    """Ask Slurm whether it would take such a job; adaptive clusters say so only in a log.

    Raises:
        WorkersLost: In Slurm's words, if it would not.
    """
    with NamedTemporaryFile("w", dir=directory, prefix="job-", suffix=".sh") as file:
        file.write(script)
        file.flush()
        command = ["sbatch", "--test-only", file.name]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=SUBMIT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise WorkersLost(
                f"Slurm has not answered for {SUBMIT_SECONDS:.0f} s; see sinfo. Nothing was started"
            ) from error
        except subprocess.CalledProcessError as error:
            said = " ".join(error.stderr.split())
            raise WorkersLost(
                f"Slurm does not take the jobs of this run: {said}; change cluster.slurm, "
                "cluster.memory or cluster.gpus. Nothing was started"
            ) from error
