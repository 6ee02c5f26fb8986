"""Settings of Dask for every cluster of a run: deadlines, one thread for a worker, no repetitions
but the scheduler's."""

from typing import Any

UNIT_SECONDS = "spherescore.unit-seconds"  # by which one unit has ended, cluster.unit_minutes

# Dask trims the heap after 64 KiB by default, so that every task faults its buffers in again:
# 1.4 to 1.5 times slower on arrays of tens of MB. Memory then returns to the system later.
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}

DASK_CONFIG: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    "distributed.scheduler.no-workers-timeout": "60s",  # by default it waits for ever
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-ttl": "2 minutes",
    # Asking a dead worker for a result takes as long as a connection may, each time.
    "distributed.comm.timeouts.connect": "5s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.retry.count": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
}


def dask_setting(name: str, otherwise: Any = None) -> Any:
    import dask.config

    return dask.config.get(name, otherwise)
