"""A real Slurm on loopback: munged, slurmctld and slurmd with two devices that pose as GPUs.

Debian: `apt-get install slurm-wlm munge`, and root, because slurmd starts jobs as their users.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services import free_port, stop, until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CPUS, MEMORY = 4, 8000  # that the node says it has, the latter in MB

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=2
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs={cpus} RealMemory={memory} \
Gres=gpu:2
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def why_not() -> str:
    """Why there can be no Slurm here, or ""."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as their users, which needs root"


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What a client needs to know of it."""

    directory: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """Output of one of Slurm's commands, which wait for ever for a controller that is gone."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    def running(self) -> list[str]:
        """Numbers of the jobs that run."""
        return self.ask("squeue", "--noheader", "--states=R", "--format=%i").split()


@contextmanager
def slurm(directory: Path) -> Iterator[Slurm]:
    """Slurm with its state in `directory`, all of it gone when the block is left."""
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for name in ("state", "spool"):
        (directory / name).mkdir()
    for number in range(2):
        os.mknod(directory / f"gpu{number}", 0o600 | 0o020000, os.makedev(1, 3))
    values = {
        "host": socket.gethostname(),
        "directory": directory,
        "controller": free_port(),
        "node": free_port(),
        "cpus": CPUS,
        "memory": MEMORY,
    }
    (directory / "slurm.conf").write_text(CONFIGURATION.format(**values))
    gpus = f"AutoDetect=off\nNodeName=node Name=gpu File={directory}/gpu[0-1]\n"
    (directory / "gres.conf").write_text(gpus)
    key = directory / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    here = Slurm(directory=directory, environment={"SLURM_CONF": str(directory / "slurm.conf")})
    with ExitStack() as stack:

        def start(program: str, *options: str) -> None:
            log = stack.enter_context((directory / f"{program}.out").open("ab"))
            found = _find(program)
            assert found is not None
            process = subprocess.Popen(
                [found, *options],
                env={**os.environ, **here.environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
            stack.callback(stop, process)

        start(
            *("munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--{kind}-file={directory}/munged.{kind}" for kind in ("pid", "log", "seed")),
            f"--socket={directory}/munge.socket",
        )
        until((directory / "munge.socket").exists, what="munged has no socket")
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-N", "node")
        stack.callback(_cancel_all, here)
        until(lambda: _idle(here), what=_tail(directory))
        yield here


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _idle(here: Slurm) -> bool:
    try:
        return here.ask("sinfo", "--noheader", "--format=%T") == "idle"
    except subprocess.SubprocessError:
        return False


def _cancel_all(here: Slurm) -> None:
    here.ask("scancel", "--full", "--partition=main")
    until(lambda: not here.ask("squeue", "--noheader"), what="jobs do not end")


def _tail(directory: Path) -> str:
    logs = (path.read_text()[-2000:] for path in directory.glob("slurm*.log"))
    return "\n".join(logs)
