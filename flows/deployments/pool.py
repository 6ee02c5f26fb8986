"""Job templates of work pools: what a pool of containers makes of a run."""

import json
from importlib.resources import files
from typing import Any


def job_template(kind: str) -> dict[str, Any]:
    """The base job template of a kind of pool; empty for processes, which need none of ours."""
    if kind == "process":
        return {}
    text = files("flows.deployments").joinpath("pools", f"{kind}.json").read_text("utf-8")
    template: dict[str, Any] = json.loads(text)
    return template
