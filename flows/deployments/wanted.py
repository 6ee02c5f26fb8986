"""What is to be deployed: one configuration, the pool that its runs go to, and when they happen."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flows.config.schema import ConfigError, RunConfig, read_config
from flows.deployments.prefect_settings import PROBE
from flows.stages.base import ON_REQUEST, STAGES
from storage.places.places import is_address

TAG = "spherescore"  # of all our deployments, and so of their runs
FLOW = "spherescore"  # the flow of all stages

Kind = Literal["process", "docker", "kubernetes"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to deploy. Without a configuration it is the server's part and the probe.

    Attributes:
        name: What the deployments are called after; by default the file's name.
        directory: Where runs start on the workers' machines. For a pool of processes it is by
            default this directory; containers start where their image says.
        alert: Whom the server tells of runs that fail: a block of Prefect, as TYPE/NAME, or the
            address of a webhook. Left empty, it is as it was.
    """

    config: Path | None
    name: str = ""
    directory: Path | None = None
    pool: str = "spherescore"
    kind: Kind = "process"
    gpus: int = 1
    nightly: str = "0 2 * * *"
    weekly: str = "0 4 * * 0"
    timezone: str = "UTC"
    alert: str = ""

    @cached_property
    def run(self) -> RunConfig:
        """The configuration as it is now."""
        assert self.config is not None
        return read_config(self.config)

    @property
    def called(self) -> str:
        """What the deployments are called after."""
        return self.name or (self.config.stem if self.config else "")

    @property
    def start(self) -> Path | None:
        """The working directory of runs, None for that of the image."""
        if self.directory is None and self.kind == "process":
            return Path.cwd()
        return self.directory

    @property
    def root(self) -> str:
        """The root of the run in full, as its workers see it."""
        root = self.run.run.root
        if is_address(root):
            return root
        return str((self.start or Path("/")) / Path(root).expanduser())

    @property
    def queue(self) -> str:
        """The work queue of the root, in which one run at a time is at work."""
        return mark_of(self.root)

    def parameter(self) -> str | dict[str, Any]:
        """What runs are given as `config`.

        Processes read the file, each time anew. Containers do not see it: they get the sections as
        they are now.

        Raises:
            ConfigError: If containers would look for relative paths in a directory of their own.
        """
        assert self.config is not None
        if self.kind == "process":
            return str(self.config.absolute())
        if self.start is None:
            _refuse_relative(self.run, self.pool)
        return self.run.to_dict()

    @property
    def deployments(self) -> list[str]:
        """Full names of all that is deployed."""
        probe = f"{PROBE}/probe"
        if self.config is None:
            return [probe]
        runs = [f"{FLOW}/{self.called}{suffix}" for suffix in ("", "-nightly", "-weekly")]
        every = (*STAGES, *ON_REQUEST)
        stages = [f"{stage.name}/{self.called}-{stage.name}" for stage in every]
        return [*runs, *stages, probe]


def mark_of(root: str) -> str:
    """A short name of a root that no other has, for queues and artifacts: letters and digits."""
    last = re.sub(r"[^a-z0-9]+", "-", root.rstrip("/").rpartition("/")[2].lower()).strip("-")
    return f"{last[:30] or 'run'}-{hashlib.sha256(root.rstrip('/').encode()).hexdigest()[:8]}"


def _refuse_relative(config: RunConfig, pool: str) -> None:
    given = {"run.root": [config.run.root], "source.paths": config.source.files}
    given |= {"source.covariates": config.source.covariate_files}
    series = [each for one in config.generate.sequences for each in one.covariates.values()]
    given |= {"generate.sequences.covariates": [one for one in series if isinstance(one, str)]}
    for key, paths in given.items():
        for path in paths:
            if not is_address(path) and not Path(path).is_absolute():
                raise ConfigError(
                    f"{key} is relative ({path}), and containers of pool {pool} start in a "
                    "directory of their image; write the path as they see it, such as "
                    f"/data/{Path(path).name}, or name their directory with --directory"
                )
