"""Each stage that uses Dask on one worker and on two, in turns: twelve years, 181 x 360."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from deploy.bench import stores
from deploy.bench.ours import RingGrid
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns
from flows.cluster.local import local_client
from flows.config.schema import Cluster, RunConfig
from flows.stages.base import STAGES

GRID, LMAX, DAYS = RingGrid.latlon(181, 360), 31, 4383
ROWS = tuple(
    Row(row=f"{stage.name}, 2 workers", rival="itself on 1", unit="s", goal=1.8)
    for stage in STAGES
    if stage.on_cluster
)


def measure(quick: bool) -> Iterator[Row]:
    days = 365 if quick else DAYS
    files = stores.netcdf_files(GRID, LMAX, days, 12)
    with stores.workshop() as shop:
        configs = [_config(str(shop / f"on-{n}"), files, days, quick) for n in (2, 1)]
        with (
            local_client(Cluster(workers=2), shop / "scratch") as two,
            local_client(Cluster(workers=1), shop / "scratch") as one,
        ):
            pairs = list(zip(configs, (two, one), strict=True))
            rows = iter(ROWS)
            for stage in STAGES:
                kinds = ("verification", *stage.kinds) if stage.name == "verify" else stage.kinds
                calls = [stores.stage_call(stage.name, c, client, kinds) for c, client in pairs]
                if not stage.on_cluster:
                    for call in calls:
                        call()
                    continue
                best = in_turns(*calls, least=2, seconds=10, quick=quick)
                yield next(rows).measured(*best, limit_share=best[1] / best[0] / 2)


def _config(root: str, files: list[str], days: int, quick: bool) -> RunConfig:
    cuts = [0, int(0.7 * days), int(0.85 * days), days]
    periods = [[stores.day(a), stores.day(b - 1)] for a, b in itertools.pairwise(cuts)]
    return RunConfig.from_dict(
        {
            "run": {"root": root},
            "source": {"paths": files, "variables": ["v"]},
            "split": dict(zip(("train", "validation", "test"), periods, strict=True)),
            "spectral": {"lmax": LMAX},
            "train": {"steps": 2, "width": 16, "blocks": 2},
            "generate": {
                "realizations": 16 if quick else 64,
                "times": [stores.day(cuts[2] + 30 * k) for k in range(2 if quick else 8)],
                "batch": 4,
            },
            "verify": {"dates": 8, "realizations": 4},
        }
    )
