"""Single bits flipped, and files removed, in every kind of file of published artifacts.

After each change the artifact is read through our readers and through plain xarray, and checked. A
flip is found if reading raises or gives exactly the values that were published, and if in any case
`check` names the file. A data file that is gone must make reading raise.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import KINDS, StoreLayout, records_of
from storage.artifacts.published import marker_of
from storage.training import checkpoints
from tests.faults.kills import golden_root, undisturbed
from tests.faults.operations import _end_training, build

Found = dict[str, Any]
Change = tuple["Subject", int | None]


@dataclass(frozen=True)
class Subject:
    """A file of an artifact, by its place below the root, and the sort of file that it is."""

    kind: str
    place: str
    sort: str


def subjects(layout: StoreLayout) -> list[Subject]:
    """Every file of what the names lead to."""
    found = []
    for kind in KINDS:
        artifact = artifacts.published(layout, kind)
        if artifact is None:
            continue
        records = records_of(artifact.path)
        for file in sorted([*artifact.path.rglob("*"), *records.rglob("*")]):
            if file.is_file():
                sort = _sort(file, artifact.path, records)
                place = file.relative_to(layout.path.resolve()).as_posix()
                found.append(Subject(kind, place, f"{sort} of {kind}"))
    return found


def _sort(file: Path, artifact: Path, records: Path) -> str:
    if file.is_relative_to(records):
        if file.name.startswith("manifest-"):
            return "manifest"
        if file.name in ("root.json", "template.json"):
            return file.name
        return "records"
    if file.parent == artifact:
        return "root zarr.json" if file.name == "zarr.json" else file.name
    if file.name == "zarr.json":
        return "arrays' zarr.json"
    if artifact.suffix != ".zarr":
        return file.name
    array = file.relative_to(artifact).parts[0]
    sharded = "sharding_indexed" in (artifact / array / "zarr.json").read_text()
    return "shards" if sharded else "chunks"


def read(layout: StoreLayout, kind: str) -> Any:
    """All values of an artifact, as the stages read them.

    Raises:
        Whatever the readers raise.
    """
    found = artifacts.published(layout, kind)
    if found is None:
        raise artifacts.IncompleteArtifact(f"{kind} is not published")
    if kind == "checkpoints":
        state = checkpoints.load_latest(found.path)
        if state is None:
            raise artifacts.CorruptArtifact("no state verifies")
        return state
    if kind == "report":
        return found.digest
    return artifacts.open_artifact(found).load()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, xr.Dataset):
        return isinstance(other, xr.Dataset) and one.identical(other)
    if isinstance(one, checkpoints.State):
        return (
            (one.step, one.meta) == (other.step, other.meta)
            and one.tensors.keys() == other.tensors.keys()
            and all(np.array_equal(v, other.tensors[k]) for k, v in one.tensors.items())
        )
    return bool(one == other)


def plainly(layout: StoreLayout, kind: str) -> xr.Dataset:
    """An artifact as xarray alone reads it."""
    return xr.open_zarr(layout.name(kind).resolve(), decode_coords="all", chunks=None).load()


def try_all(root: Path, chosen: Sequence[Change], *, foreign: bool = True) -> Found:
    """Make each change alone: flip bit n of the file, or remove the file where n is None.

    Returns:
        tried, bad (sentences), and how often what happened (by sort, and to plain xarray).
    """
    layout = StoreLayout(str(root))
    kinds = sorted({subject.kind for subject, _ in chosen})
    golden = {kind: read(layout, kind) for kind in kinds}
    plain = {k: plainly(layout, k) for k in kinds if foreign and layout.name(k).suffix == ".zarr"}
    bad, counts, others = list[str](), Counter[str](), Counter[str]()
    for subject, bit in chosen:
        file = root.resolve() / subject.place
        content = file.read_bytes()
        _change(file, content, bit)
        what = f"{subject.place} without its file" if bit is None else f"{subject.place}, bit {bit}"
        raised, equal = _outcome(lambda s=subject: read(layout, s.kind), golden[subject.kind])
        if not raised and not equal:
            bad.append(f"{what}: other values are read")
        elif bit is None and not raised:
            bad.append(f"{what}: it is read all the same")
        problems = _said_by_check(layout, subject)
        named = subject.place if bit is not None else subject.place.split("/")[1]
        if not any(named in problem for problem in problems):
            bad.append(f"{what}: check does not name it, but says {problems}")
        counts[f"{subject.sort}: {'refused' if raised else 'harmless to readers'}"] += 1
        if subject.kind in plain:
            raised, equal = _outcome(lambda s=subject: plainly(layout, s.kind), plain[subject.kind])
            others["refused" if raised else "same" if equal else "wrong"] += 1
        file.write_bytes(content)
    return {"tried": len(chosen), "bad": bad, "counts": counts, "others": others}


def _said_by_check(layout: StoreLayout, subject: Subject) -> list[str]:
    """Of the artifact that was changed; all the others are as they were."""
    artifact = layout.path.resolve() / Path(*Path(subject.place).parts[:2])
    if artifact.suffix == ".records":
        artifact = layout.name(subject.kind).resolve()
    if not marker_of(artifact).exists():
        return audit.check(layout)
    return audit.problems_of(artifact)


def _outcome(reader: Any, golden: Any) -> tuple[bool, bool]:
    try:
        return False, same(golden, reader())
    except Exception:
        return True, False


def _change(file: Path, content: bytes, bit: int | None) -> None:
    if bit is None:
        file.unlink()
        return
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)


def choose(root: Path, flips: int, seed: int) -> list[Change]:
    """Flips spread evenly over the sorts of files, then over their files and bits."""
    by_sort: dict[str, list[Subject]] = {}
    for subject in subjects(StoreLayout(str(root))):
        by_sort.setdefault(subject.sort, []).append(subject)
    chance = random.Random(seed)
    sorts = sorted(by_sort)
    chosen: list[Change] = []
    for number in range(flips):
        subject = chance.choice(by_sort[sorts[number % len(sorts)]])
        size = (root.resolve() / subject.place).stat().st_size
        chosen.append((subject, chance.randrange(8 * size) if size else None))
    return [one for one in chosen if one[1] is not None]


def data_files(root: Path) -> list[Subject]:
    """Files that readers need: all but the records of units and templates."""
    needless = ("records of", "root.json of", "template.json of")
    found = subjects(StoreLayout(str(root)))
    return [one for one in found if not one.sort.startswith(needless)]


def flipped_bits(directory: Path, flips: int = 10_000) -> Found:
    """Single bits of every sort of file of a whole run and of small artifacts with units."""
    found = _on_copies(directory, lambda root: choose(root, flips // 2, seed=1))
    plain = found["others"]
    return {
        "tried": found["tried"],
        "bad": found["bad"],
        "said": f"{len({name.split(':')[0] for name in found['counts']})} sorts of files; of "
        f"{sum(plain.values())} in Zarr stores plain xarray refuses {plain['refused']}, reads "
        f"{plain['same']} as they were and {plain['wrong']} as other values, without a word",
    }


def missing_files(directory: Path) -> Found:
    """Each file that readers need, removed."""
    found = _on_copies(directory, lambda root: [(one, None) for one in data_files(root)])
    plain = found["others"]
    return {
        "tried": found["tried"],
        "bad": found["bad"],
        "said": f"plain xarray reads {plain['wrong']} of {sum(plain.values())} as other values",
    }


def _on_copies(directory: Path, choice: Callable[[Path], list[Change]]) -> Found:
    """`try_all` on a whole run and on small artifacts, on a copy for each core."""
    undisturbed()
    small = directory / "small" / "run"
    build(StoreLayout(str(small)), 2, 1)
    _end_training(StoreLayout(str(small)))
    total: Found = {"tried": 0, "bad": [], "counts": Counter(), "others": Counter()}
    cores, jobs = os.cpu_count() or 1, list[tuple[Path, list[Change]]]()
    for root in (golden_root(), small):
        chosen = choice(root)
        for number in range(cores):
            copy = directory / f"copy-{root.parent.name}-{number}"
            left_out = shutil.ignore_patterns("prefect", "logs", "scratch")
            shutil.copytree(root, copy, symlinks=True, ignore=left_out)
            jobs.append((copy, chosen[number::cores]))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for part in pool.map(try_all, *zip(*jobs, strict=True)):
            for name, value in part.items():
                total[name] += value
    return total
