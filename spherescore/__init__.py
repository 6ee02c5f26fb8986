"""Learn the law of global fields from files, draw new ones, and read them as xarray datasets.

    import spherescore

    spherescore.plan("my.toml")                         # what a run will take, as a table
    spherescore.run("my.toml")                          # all stages; what is done is not repeated
    ensemble = spherescore.open_ensemble("runs/my")     # (realization, time, lat, lon)
    ensemble["pr"].sel(time="2002-07-15").quantile(0.9, "realization")

| call | gives |
|---|---|
| `init(files)` | a configuration for files, as text |
| `read_config(path)` | the configuration of a run, checked |
| `plan(config)` | time, bytes, files, units and memory of each stage |
| `run(config)` | the stages, and a table of what each has made |
| `open_ensemble(root)` | what was drawn for dates |
| `condition(config)` | fields given stations, holes, coarse fields or an event |
| `open_sequences(root)` | days drawn one after the other |
| `open_fields(root)` | the fields that were learned from |
| `xr.open_dataset(root, engine="spherescore")` | the same, without importing anything of ours |

Importing this package adds `dataset.spherescore` (maps, spectra, quantiles) to every dataset. It
takes xarray and numpy; what computes is imported by the calls that need it.
"""

import pipeline.fields.accessor  # noqa: F401  registers dataset.spherescore
from spherescore.opening import (
    SpherescoreBackend,
    open_conditioned,
    open_ensemble,
    open_fields,
    open_sequences,
)
from spherescore.running import condition, init, plan, read_config, run

__all__ = [
    "SpherescoreBackend",
    "condition",
    "init",
    "open_conditioned",
    "open_ensemble",
    "open_fields",
    "open_sequences",
    "plan",
    "read_config",
    "run",
]
