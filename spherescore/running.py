"""What `spherescore plan` and `spherescore run` do, for scripts and notebooks."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from flows.config.schema import RunConfig

    Config = str | os.PathLike[str] | Mapping[str, Any] | RunConfig

__all__ = ["condition", "init", "plan", "read_config", "run"]


def init(files: str | os.PathLike[str] | Sequence[str], root: str = "runs/first") -> str:
    """Propose a configuration for files: what `spherescore init` writes. Nothing is written here.

    Args:
        files: A path, a pattern such as "era5/*.nc", an address, or several of these.
        root: Where the run will put what it makes.
    Returns:
        TOML with comments. `tomllib.loads` makes the sections of it that `run` and `plan` take.
    Raises:
        storage.errors.SourceError: If the files hold no field; the message says what is there.
    Examples:
        >>> config = tomllib.loads(spherescore.init("era5/*.nc"))
        >>> config["generate"]["realizations"] = 100
        >>> spherescore.run(config)
    """
    from flows.config.draft import starter

    several = [files] if isinstance(files, str | os.PathLike) else files
    return starter([os.fspath(one) for one in several], root)


def read_config(path: str | os.PathLike[str]) -> RunConfig:
    """Read and check the configuration of a run.

    Args:
        path: Its TOML file.
    Returns:
        A frozen record with one attribute per section: `config.run.root`,
        `config.generate.realizations`. docs/configuration.md has all keys.
    Raises:
        flows.config.strict.ConfigError: If a key is unknown or a value cannot be; the message names
            the key and what is expected.
    """
    from flows.config.schema import read_config as read

    return read(os.fspath(path))


def plan(config: Config) -> pd.DataFrame:
    """Estimate what each stage of a run takes. Nothing is written.

    Args:
        config: The TOML file, its sections as a mapping, or what `read_config` gave.
    Returns:
        One row per stage: `seconds` (NaN where no prices were measured), `bytes` and `files` that
        it writes, `units` of work, `memory` of one worker and `memory_here` of this process
        [bytes]. `attrs["prices_of"]` names the machine at whose speed the times are,
        `attrs["block_degree"]` what Gaussian laws leave out where they are too large.
    Examples:
        >>> spherescore.plan("my.toml")["seconds"].sum() / 60  # minutes
    """
    import pandas as pd

    from flows.plan.plan import estimate
    from flows.plan.work import prices
    from flows.stages.block_degree import block_degree_words

    read = _config(config)
    table = pd.DataFrame([vars(one) for one in estimate(read)]).set_index("stage")
    table["seconds"] = table["seconds"].astype("float64")
    price = prices()
    table.attrs["prices_of"] = price.where if price else None
    table.attrs["block_degree"] = block_degree_words(read)
    return table


def run(config: Config, *, until: str = "verify") -> pd.DataFrame:
    """Bring the stages of a run up to date: ingest, preprocess, train, generate, verify.

    What is finished is not done again, and what was interrupted goes on where it was. Nothing of
    Prefect is started; `spherescore run` and `spherescore deploy` do the same as flows. A terminal
    shows lines that fill, Jupyter a line for each stage and some in between. In a script the call
    stands below `if __name__ == "__main__":`, because Dask starts workers that import it.

    Args:
        config: The TOML file, its sections as a mapping, or what `read_config` gave.
        until: The last stage.
    Returns:
        One row per stage: `path` of what it has made, its `digest`, `seconds` that it took,
        `skipped` if it was up to date, and its `figures`.
    Raises:
        Whatever a stage raises, with the remedy in its message; what is finished by then is safe.
    Examples:
        >>> spherescore.run("my.toml").loc["train", "figures"]
    """
    import pandas as pd

    from flows.cli.console import lines, shown
    from flows.run import run as run_all
    from flows.stages.base import STAGES

    names = [stage.name for stage in STAGES]
    if until not in names:
        raise ValueError(f"until = {until!r} is no stage; the stages are {', '.join(names)}")
    watched = lines if "ipykernel" in sys.modules else shown  # in Jupyter, or on a terminal
    with watched(logging.getLogger("spherescore")):
        receipts = run_all(_config(config), until=until)
    columns = ["stage", "path", "digest", "seconds", "skipped", "figures"]
    return pd.DataFrame([one.to_dict() for one in receipts])[columns].set_index("stage")


def condition(config: Config) -> xr.Dataset:
    """Draw fields given what [condition] says: stations, holes, coarse fields, or an event.

    The run has to be up to date until its model is trained. What is drawn already is opened.

    Args:
        config: As of `run`.
    Returns:
        Draws, with the dimensions of an ensemble. How well they do is in the page beside them.
    Raises:
        storage.errors.IncompleteArtifact: If a stage before it is not up to date.
    """
    from flows.run import run_alone
    from spherescore.opening import open_conditioned

    read = _config(config)
    run_alone(read, "condition")
    return open_conditioned(read.run.root)


def _config(given: Config) -> RunConfig:
    from flows.config.forms import config_from

    return config_from(os.fspath(given) if isinstance(given, os.PathLike) else given)
