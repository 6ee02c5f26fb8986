"""Codecs of shards on what the artifacts hold: microseconds for each field of 181 x 360, and size.

    python -m deploy.bench.codecs

Writing is encoding, checksum and sha256; reading is checksum and decoding; the disk is left out.
docs/decisions/0010-codecs.md has the table, storage/artifacts/templates what follows from it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deploy.bench import inputs
from deploy.bench.ours import RingGrid
from deploy.bench.timing import in_turns, timed
from storage.artifacts.shards import ShardLayout

COUNT, CHUNK = 32, 4
SHUFFLES = {"no shuffle": 0, "shuffle": 1, "bitshuffle": 2}
CODECS = [
    ("none", None),
    *(
        (f"{name}-{level}, {shuffle}", (name.encode(), level, number, 0))
        for name, level in (("lz4", 5), ("zstd", 1))
        for shuffle, number in SHUFFLES.items()
    ),
]


def main() -> None:
    grid = RingGrid.latlon(181, 360)
    _, smooth = inputs.loaded(inputs.made(grid, 179, COUNT))
    white = np.random.default_rng(0).standard_normal(smooth.shape).astype(np.float32)
    contents = {
        "fields": smooth + np.float32(280),
        "ensemble, with noise beyond lmax": smooth + np.float32(280) + np.float32(0.1) * white,
        "whitened": white[:, :180, :180],
    }
    print("| content | codec | write | read | ratio |\n|---|---|---|---|---|")
    with TemporaryDirectory() as directory:
        for content, values in contents.items():
            for name, codec in CODECS:
                line = measured(Path(directory) / "shard", np.ascontiguousarray(values), codec)
                print(f"| {content} | {name} | {line}", flush=True)


def measured(file: Path, values: np.ndarray, codec: tuple[bytes, int, int, int] | None) -> str:
    layout = ShardLayout(
        values.shape, (CHUNK, *values.shape[1:]), values.dtype, np.float32(0), codec
    )
    everything = tuple(slice(0, size) for size in values.shape)
    back = np.empty_like(values)

    def write() -> None:
        digest = hashlib.sha256()
        for part in layout.encode(values):
            digest.update(part)

    file.write_bytes(b"".join(map(bytes, layout.encode(values))))
    calls = timed(write), timed(lambda: layout.read(file, everything, back))
    writing, reading = (1e6 * seconds / COUNT for seconds in in_turns(*calls, seconds=1.0))
    assert np.array_equal(back, values)
    return f"{writing:.0f} | {reading:.0f} | {values.nbytes / file.stat().st_size:.2f} |"


if __name__ == "__main__":
    main()
