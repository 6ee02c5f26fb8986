"""What commands print: the lines of each table that a command has found."""

from collections.abc import Iterator, Mapping
from typing import Any

from flows.errors import OutputClosed
from storage.places.places import is_address

Table = Mapping[str, Any]


def say(line: str) -> None:
    """Print a line at once.

    Raises:
        OutputClosed: If nobody reads any more.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError as error:
        raise OutputClosed("nobody reads the output any more") from error


def plan(table: Table) -> Iterator[str]:
    from dask.utils import format_bytes

    from flows.plan.plan import duration

    heads = f"{'stage':<12}{'time':>10}{'writes':>12}{'files':>8}{'units':>8}"
    yield f"{heads}{'worker':>12}{'here':>12}"
    for name, one in table["stages"].items():
        worker = format_bytes(one["memory"]) if one["memory"] else "-"
        yield (
            f"{name:<12}{duration(one['seconds']):>10}{format_bytes(one['bytes']):>12}"
            f"{one['files']:>8}{one['units']:>8}{worker:>12}{format_bytes(one['memory_here']):>12}"
        )
    free = "-" if table["free_bytes"] is None else format_bytes(table["free_bytes"])
    memory, here = (format_bytes(table[name]) for name in ("memory_per_worker", "memory_here"))
    yield f"{'there is':<22}{free:>12}{'':>16}{memory:>12}{here:>12}"
    if table["block_degree"]:
        yield table["block_degree"]
    where = table["prices_of"]
    yield f"times at the speed of: {where}" if where else "no times: see make unit-costs"


def status(table: Table) -> Iterator[str]:
    for name, one in table["stages"].items():
        digest = one["digest"][:16] if one["digest"] else "-"
        elsewhere = f"  {one['path']}" if one["path"] and is_address(one["path"]) else ""
        yield f"{name:<12}{digest:<18}{one['state']}{elsewhere}"


def check(table: Table) -> Iterator[str]:
    yield from table["problems"] or [f"{table['root']}: every published byte is right"]


def runs(table: Table) -> Iterator[str]:
    from flows.cli.history import table as lines

    yield lines(table["runs"])


def clean(table: Table) -> Iterator[str]:
    from dask.utils import format_bytes

    for one in table["pieces"]:
        yield f"{format_bytes(one['bytes']):>12}  {one['path']}: {one['reason']}"
    end = "removed" if table["removed"] else "would be removed; nothing is yet, see --yes"
    yield f"{format_bytes(table['bytes']):>12}  in {len(table['pieces'])} pieces {end}"


def receipts(table: Table) -> Iterator[str]:
    """Where the things are that a run or a stage has made."""
    if table["nothing_to_do"] and table["whole"]:
        yield f"nothing to do: {table['root']} is up to date with {table['config']}"
    wide = max(len(name) for name in ("checkpoints", *table["artifacts"], *table["worth"])) + 3
    for kind, artifact in table["artifacts"].items():
        yield f"{kind:<{wide}}{artifact['path']}"
    if table["worth"]:
        yield ""
    for name, sentence in table["worth"].items():
        yield f"{name:<{wide}}{sentence}"


def export(table: Table) -> Iterator[str]:
    yield f"{table['written']} of {table['files']} written to {table['directory']}"


def keys(table: Table) -> Iterator[str]:
    yield from table["lines"]


def init(table: Table) -> Iterator[str]:
    to = table["to"]
    if to is None:
        yield table["config"].rstrip("\n")
    else:
        yield from table["look"]
        yield f"{to} is written; look it through, then: spherescore run {to}"
