"""Inputs that are hostile or broken, and their benign twins, made by code from seeds.

A case is a function that writes files into a directory and returns what it has to say in `[source]`
(or the whole text of a configuration), with the exit codes that are documented for it.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.storage.imitations import regular

Make = Callable[[Path, random.Random], Any]

ANY = frozenset({0, 10, 60})  # a flipped bit may hit what nobody checks, and what nobody needs


@dataclass(frozen=True)
class Case:
    name: str
    make: Make
    codes: frozenset[int]
    unprivileged: bool = False


CASES: dict[str, Case] = {}
TWINS: dict[str, Case] = {}


def case(name: str, *codes: int, unprivileged: bool = False) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        known = TWINS if codes == (0,) else CASES
        assert name not in known, name
        known[name] = Case(name, make, frozenset(codes), unprivileged)
        return make

    return register


def add(name: str, make: Make, *codes: int) -> None:
    case(name, *codes)(make)


def source(*paths: Any, **more: Any) -> dict[str, Any]:
    return {"paths": [str(path) for path in paths], "variables": ["ta"], **more}


# ------------------------------------------------------------------ formats, whole and in pieces

NETCDF = {
    "NetCDF3": {"format": "NETCDF3_CLASSIC"},
    "NetCDF3 64 bit": {"format": "NETCDF3_64BIT"},
    "CDF-5": {"format": "NETCDF3_64BIT_DATA"},
    "NetCDF4": {"format": "NETCDF4"},
    "NetCDF4 packed": {
        "encoding": {"ta": {"zlib": True, "shuffle": True, "chunksizes": (5, 4, 8)}}
    },
}
ZARR: dict[str, dict[str, Any]] = {
    "Zarr 2": {"zarr_format": 2, "consolidated": False},
    "Zarr 2 consolidated": {"zarr_format": 2, "consolidated": True},
    "Zarr 3": {"zarr_format": 3, "consolidated": False},
    "Zarr 3 consolidated": {"zarr_format": 3, "consolidated": True},
}


def netcdf(path: Path, made: xr.Dataset | None = None, **options: Any) -> Path:
    made = regular(20) if made is None else made
    if options.get("format") == "NETCDF3_64BIT_DATA":
        import netCDF4

        made.to_netcdf(path)
        with (
            netCDF4.Dataset(path) as old,
            netCDF4.Dataset(path.with_suffix(".5"), "w", **options) as new,
        ):
            for name, dim in old.dimensions.items():
                new.createDimension(name, dim.size)
            for name, one in old.variables.items():
                attrs = {k: v for k, v in vars(one).items() if k != "_FillValue"}
                copy = new.createVariable(name, one.dtype, one.dimensions)
                copy.setncatts(attrs)
                copy[:] = one[:]
        path.with_suffix(".5").rename(path)
    else:
        made.to_netcdf(path, **options)
    return path


def store(path: Path, made: xr.Dataset | None = None, **options: Any) -> Path:
    made = regular(20) if made is None else made
    made.chunk(time=5).to_zarr(path, mode="w", **{"zarr_format": 2, **options})
    return path


def grib(path: Path, edition: int = 2) -> Path:
    from tests.storage.sources.test_formats import message

    with path.open("wb") as file:
        for day in range(20000101, 20000122):  # no cut is between two of them
            message(file, "t", day, 850, sample=f"regular_ll_pl_grib{edition}")
    return path


def grib_source(path: Path, **more: Any) -> dict[str, Any]:
    return source(path, **{"variables": ["t@850"], **more})


def cut(path: Path, keep: float | int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])


def flip(path: Path, rng: random.Random, first: int = 0, last: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(first, min(last or len(content), len(content)))
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


KEPT: tuple[float | int, ...] = (0, 3, 30, 0.2, 0.5, 0.8, 0.95, -1)

for _name, _options in NETCDF.items():
    add(f"{_name}", lambda d, r, o=_options: source(netcdf(d / "a.nc", **o)), 0)
    for _keep in KEPT:

        def _cut(d: Path, r: random.Random, o: Any = _options, k: Any = _keep) -> Any:
            cut(netcdf(d / "a.nc", **o), k)
            return source(d / "a.nc")

        add(f"{_name} cut at {_keep}", _cut, 10)
    for _seed in range(8):

        def _flip(d: Path, r: random.Random, o: Any = _options) -> Any:
            flip(netcdf(d / "a.nc", **o), r, 0, 3000)
            return source(d / "a.nc")

        add(f"{_name} flipped {_seed}", _flip, *ANY)

for _edition in (1, 2):
    add(f"GRIB {_edition}", lambda d, r, e=_edition: grib_source(grib(d / "a.grib", e)), 0)
    for _keep in KEPT:

        def _cut_grib(d: Path, r: random.Random, e: int = _edition, k: Any = _keep) -> Any:
            cut(grib(d / "a.grib", e), k)
            return grib_source(d / "a.grib")

        add(f"GRIB {_edition} cut at {_keep}", _cut_grib, 10)
    for _seed in range(6):

        def _flip_grib(d: Path, r: random.Random, e: int = _edition) -> Any:
            flip(grib(d / "a.grib", e), r, 0, 400)
            return grib_source(d / "a.grib")

        add(f"GRIB {_edition} flipped {_seed}", _flip_grib, *ANY)

for _name, _options in ZARR.items():
    _three = _options["zarr_format"] == 3
    _array = "ta/zarr.json" if _three else "ta/.zarray"
    _root = "zarr.json" if _three else ".zmetadata" if _options["consolidated"] else ".zgroup"
    _chunk = "ta/c/1/0/0" if _three else "ta/1.0.0"
    add(_name, lambda d, r, o=_options: source(store(d / "a.zarr", **o)), 0)
    for _document, _what in ((_array, "array"), (_root, "root"), (_chunk, "chunk")):
        for _keep in (0, 0.5, -1):

            def _cut_zarr(
                d: Path, r: random.Random, o: Any = _options, f: str = _document, k: Any = _keep
            ) -> Any:
                cut(store(d / "a.zarr", **o) / f, k)
                return source(d / "a.zarr")

            # Metadata that a consolidated copy stands for are not read.
            spare = _what == "array" and _options["consolidated"] and _keep
            add(f"{_name}, {_what} cut at {_keep}", _cut_zarr, *((0, 10) if spare else (10,)))
        for _seed in range(3):

            def _flip_zarr(d: Path, r: random.Random, o: Any = _options, f: str = _document) -> Any:
                flip(store(d / "a.zarr", **o) / f, r)
                return source(d / "a.zarr")

            add(f"{_name}, {_what} flipped {_seed}", _flip_zarr, *ANY)


def _without(fill: float | None) -> Make:
    def make(d: Path, r: random.Random) -> Any:
        encoding = {"ta": {"_FillValue": fill}}
        path = store(d / "a.zarr", zarr_format=2, consolidated=False, encoding=encoding)
        (path / "ta" / "1.0.0").unlink()
        return source(path, valid_range={"ta": [-1.0, 400.0]})

    return make


def _without3(d: Path, r: random.Random) -> Any:
    path = store(d / "a.zarr", zarr_format=3, consolidated=False)
    shutil.rmtree(path / "ta" / "c" / "1")
    return source(path, valid_range={"ta": [-1.0, 400.0]})


def _nothing(d: Path, r: random.Random) -> Any:
    made = regular(20)
    made["ta"][5:10] = 0
    encoding = {"ta": {"fill_value": 0.0}}
    path = store(d / "a.zarr", made, zarr_format=3, consolidated=False, encoding=encoding)
    assert not (path / "ta" / "c" / "1").exists()
    return source(path, valid_range={"ta": [-1.0, 400.0]})


def _some(d: Path, r: random.Random) -> Any:
    made = regular(20)
    made["ta"][5:10, :2] = 0
    encoding = {"ta": {"chunks": (5, 2, 8), "fill_value": 0.0}}
    path = store(d / "a.zarr", made, zarr_format=3, consolidated=False, encoding=encoding)
    assert len(list((path / "ta" / "c" / "1").iterdir())) == 1
    return source(path, valid_range={"ta": [-1.0, 400.0]})


add("Zarr 2 without a chunk, filled by 0", _without(0.0), 10)
add("Zarr 2 without a chunk and a fill value", _without(None), 10)
add("Zarr 3 without a chunk", _without3, 10)
add("Zarr 3 with zeros at all places of a time, not stored", _nothing, 10)
add("Zarr 3 with zeros at some places of a time, not stored", _some, 0)


# ------------------------------------------------------------------ too large


def zarray(path: Path, **changes: Any) -> Path:
    """Change the metadata of `ta` in a store of Zarr 2."""
    file = path / "ta" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def v3(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    file = path / "ta" / "zarr.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return path


PLAIN2: dict[str, Any] = {"zarr_format": 2, "consolidated": False}
PLAIN3: dict[str, Any] = {"zarr_format": 3, "consolidated": False}


def compressed(d: Path, codec: Any, **options: Any) -> Path:
    return store(d / "a.zarr", encoding={"ta": {"compressors": codec}}, **PLAIN2, **options)


def _codecs() -> dict[str, Any]:
    import numcodecs as n

    return {
        "blosc": n.Blosc(),
        "zstd": n.Zstd(),
        "gzip": n.GZip(),
        "zlib": n.Zlib(),
        "lz4": n.LZ4(),
        "bz2": n.BZ2(),
        "lzma": n.LZMA(),
    }


for _name, _codec in _codecs().items():
    add(f"Zarr 2 packed by {_name}", lambda d, r, c=_codec: source(compressed(d, c)), 0)

    def _bomb(d: Path, r: random.Random, c: Any = _codec) -> Any:
        path = compressed(d, c)
        (path / "ta" / "1.0.0").write_bytes(bytes(c.encode(np.zeros(96 << 20, "u1"))))
        return source(path)

    add(f"a chunk of {_name} that becomes 96 MiB", _bomb, 10)


@case("a chunk of Blosc that claims 2 GiB", 10)
def _(d: Path, r: random.Random) -> Any:
    path = compressed(d, _codecs()["blosc"])
    chunk = path / "ta" / "1.0.0"
    content = bytearray(chunk.read_bytes())
    content[4:8] = struct.pack("<I", 0x7FFFFFF0)
    chunk.write_bytes(bytes(content))
    return source(path)


@case("a chunk of LZ4 that claims 2 GiB", 10)
def _(d: Path, r: random.Random) -> Any:
    path = compressed(d, _codecs()["lz4"])
    (path / "ta" / "1.0.0").write_bytes(struct.pack("<I", 0x7FFFFFF0) + bytes(1000))
    return source(path)


@case("a chunk of Zstandard that claims 512 MiB", 10)
def _(d: Path, r: random.Random) -> Any:
    path = compressed(d, _codecs()["zstd"])
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", 512 << 20) + b"\x01\x00\x00"
    (path / "ta" / "1.0.0").write_bytes(frame + bytes(100))
    return source(path)


@case("blocks of Zstandard that repeat one byte a billion times", 10)
def _(d: Path, r: random.Random) -> Any:
    path = compressed(d, _codecs()["zstd"])
    block = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\0"
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x70]) + block * 8000 + b"\x01\x00\x00"
    (path / "ta" / "1.0.0").write_bytes(frame)
    return source(path)


@case("Zarr 3: a chunk of gzip that becomes 96 MiB", 10)
def _(d: Path, r: random.Random) -> Any:
    from zarr.codecs import GzipCodec

    path = store(d / "a.zarr", encoding={"ta": {"compressors": GzipCodec()}}, **PLAIN3)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    (path / "ta/c/1/0/0").write_bytes(packer.compress(bytes(96 << 20)) + packer.flush())
    return source(path)


@case("Zarr 3: a chunk of Blosc that claims 2 GiB", 10)
def _(d: Path, r: random.Random) -> Any:
    from zarr.codecs import BloscCodec

    path = store(d / "a.zarr", encoding={"ta": {"compressors": BloscCodec()}}, **PLAIN3)
    chunk = path / "ta/c/1/0/0"
    content = bytearray(chunk.read_bytes())
    content[4:8] = struct.pack("<I", 0x7FFFFFF0)
    chunk.write_bytes(bytes(content))
    return source(path)


for _name, _change in {
    "a shape of 10^15 times": {"shape": [10**15, 4, 8]},
    "a shape beyond 64 bits": {"shape": [10**30, 4, 8]},
    "a negative shape": {"shape": [-20, 4, 8]},
    "a shape of fractions": {"shape": [20.5, 4, 8]},
    "a chunk of 10^9 times": {"chunks": [10**9, 4, 8]},
    "a chunk of no times": {"chunks": [0, 4, 8]},
    "a shape of text": {"shape": "many"},
    "an unknown type": {"dtype": "<q9"},
    "a type of fields": {"dtype": [["a", "<f4"], ["b", "<f4"]]},
    "texts of 10^9 letters": {"dtype": "<U1000000000"},
    "an order of nothing": {"order": "Z"},
    "codecs that are a number": {"compressor": 7},
    "a filter without a name": {"filters": [{}]},
}.items():

    def _changed(d: Path, r: random.Random, c: Any = _change) -> Any:
        return source(zarray(store(d / "a.zarr", **PLAIN2), **c))

    add(f"Zarr 2: {_name}", _changed, *((60,) if _name == "a type of fields" else (10,)))


def _deep(codecs: list[Any], depth: int) -> list[Any]:
    for _ in range(depth):
        inner = {"chunk_shape": [1, 1, 1], "codecs": codecs, "index_codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    return codecs


def _set(document: dict[str, Any], **values: Any) -> None:
    document.update(values)


for _name, _edit, _code in (
    (
        "a chunk of 10^9 times",
        lambda z: z["chunk_grid"]["configuration"].update(chunk_shape=[10**9, 4, 8]),
        10,
    ),
    ("a shape of 10^15 times", lambda z: _set(z, shape=[10**15, 4, 8]), 10),
    ("shards in shards in shards", lambda z: _set(z, codecs=_deep(z["codecs"], 12)), 10),
    ("an unknown codec", lambda z: _set(z, codecs=[*z["codecs"], {"name": "magic"}]), 60),
    ("a pickle codec", lambda z: _set(z, codecs=[{"name": "numcodecs.pickle"}, *z["codecs"]]), 60),
    ("a type of objects", lambda z: _set(z, data_type="variable_length_bytes"), 60),
    ("no codecs", lambda z: _set(z, codecs=[]), 10),
    ("an unknown type", lambda z: _set(z, data_type="float33"), 10),
    ("an unknown grid of chunks", lambda z: _set(z, chunk_grid={"name": "odd"}), 10),
    ("names of dimensions that are too many", lambda z: _set(z, dimension_names=["time"] * 9), 10),
):

    def _edited(d: Path, r: random.Random, e: Any = _edit) -> Any:
        return source(v3(store(d / "a.zarr", **PLAIN3), e))

    add(f"Zarr 3: {_name}", _edited, _code)


@case("Zarr 3: JSON a hundred thousand deep", 10)
def _(d: Path, r: random.Random) -> Any:
    path = store(d / "a.zarr", **PLAIN3)
    (path / "ta" / "zarr.json").write_text("[" * 100_000 + "]" * 100_000)
    return source(path)


@case("Zarr 2: metadata of 80 MiB", 10)
def _(d: Path, r: random.Random) -> Any:
    path = store(d / "a.zarr", **PLAIN2)
    with (path / "ta" / ".zarray").open("a") as file:
        file.write(" " * (80 << 20))
    return source(path)


@case("a zip file of a store that unpacks to gigabytes", 10)
def _(d: Path, r: random.Random) -> Any:
    path = store(d / "a.zarr", **PLAIN2)
    with zipfile.ZipFile(d / "b.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != "1.0.0":
                archive.write(file, file.relative_to(path))
        with archive.open("ta/1.0.0", "w", force_zip64=True) as chunk:
            for _ in range(20):
                chunk.write(bytes(64 << 20))
    return source(d / "b.zarr.zip")


def hdf5(d: Path, change: Callable[[Any, Path], None]) -> Path:
    """A NetCDF4 file changed by h5py."""
    import h5py

    path = netcdf(d / "a.nc", **NETCDF["NetCDF4 packed"])
    with h5py.File(path, "r+") as file:
        change(file, d)
    return path


def _dataset(file: Any, **options: Any) -> Any:
    """`ta` made anew on the same dimensions, with no values."""
    old = file["ta"]
    attrs = {k: v for k, v in old.attrs.items() if k in ("units", "standard_name")}
    scales = [file[name] for name in ("time", "lat", "lon")]
    del file["ta"]
    new = file.create_dataset("ta", **{"shape": (20, 4, 8), "dtype": "f4", **options})
    new.attrs.update(attrs)
    for dim, scale in zip(new.dims, scales, strict=True):
        dim.attach_scale(scale)
    return new


@case("HDF5: a chunk of deflate that becomes gigabytes", 10)
def _(d: Path, r: random.Random) -> Any:
    def change(file: Any, _: Path) -> None:
        packer = zlib.compressobj(9)
        bomb = packer.compress(bytes(3000 << 20)) + packer.flush()
        new = _dataset(file, chunks=(5, 4, 8), compression="gzip")
        new.id.write_direct_chunk((0, 0, 0), bomb)

    return source(hdf5(d, change))


@case("HDF5: chunks of 4 GB of zeros", 10)
def _(d: Path, r: random.Random) -> Any:
    import h5py

    with h5py.File(d / "a.nc", "w") as file:
        for name, size in (("time", 3), ("lat", 32000), ("lon", 32000)):
            file.create_dataset(name, data=np.arange(size)).make_scale(name)
        new = file.create_dataset(
            "ta", (3, 32000, 32000), "f4", chunks=(1, 30000, 30000), compression="gzip"
        )
        for dim, name in zip(new.dims, ("time", "lat", "lon"), strict=True):
            dim.attach_scale(file[name])
    return source(d / "a.nc")


@case("NetCDF4: a billion times, none written", 10)
def _(d: Path, r: random.Random) -> Any:
    import netCDF4

    netcdf(d / "a.nc")
    with netCDF4.Dataset(d / "b.nc", "w") as file:
        for name, size in (("time", 10**9), ("lat", 4), ("lon", 8)):
            file.createDimension(name, size)
            file.createVariable(name, "f8", (name,), chunksizes=(min(size, 1024),))
        file["time"].units = "days since 2000-01-01"
        file.createVariable("ta", "f4", ("time", "lat", "lon"), chunksizes=(1, 4, 8)).units = "K"
    return source(d / "b.nc")


def _classic(dims: Mapping[str, int], begin: int = 1 << 12, version: int = 2) -> bytes:
    """The header of a classic file with `ta` along dims, and no values."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)

    content = b"CDF" + bytes([version]) + struct.pack(">I", 0)
    content += struct.pack(">II", 10, len(dims))
    for name, size in dims.items():
        content += text(name) + struct.pack(">I", size)
    content += struct.pack(">II", 0, 0) + struct.pack(">II", 11, 1) + text("ta")
    content += struct.pack(">I", len(dims)) + b"".join(
        struct.pack(">I", i) for i in range(len(dims))
    )
    return content + struct.pack(">IIIIQ", 0, 0, 5, 0xFFFFFFFF, begin)


for _name, _bytes in {
    "sizes of 2^31 each": _classic({"time": 1 << 31, "lat": 1 << 31, "lon": 1 << 31}),
    "a list of 2^31 dimensions": b"CDF\x01" + struct.pack(">III", 0, 10, 1 << 31),
    "a name of 2^31 letters": b"CDF\x01" + struct.pack(">IIII", 0, 10, 1, 1 << 31),
    "an unknown list": b"CDF\x02" + struct.pack(">III", 0, 77, 3),
    "values beyond its end": _classic({"time": 4, "lat": 4, "lon": 8}, begin=1 << 40),
    "two billion records": b"CDF\x01" + struct.pack(">I", 0x7FFFFFFF) + _classic({"time": 0})[8:],
}.items():

    def _header(d: Path, r: random.Random, b: bytes = _bytes) -> Any:
        (d / "a.nc").write_bytes(b)
        return source(d / "a.nc")

    add(f"NetCDF3: {_name}", _header, 10)


@case("GRIB: a message that claims 2^60 bytes", 10)
def _(d: Path, r: random.Random) -> Any:
    (d / "a.grib").write_bytes(b"GRIB\0\0\0\2" + struct.pack(">Q", 1 << 60) + bytes(200))
    return grib_source(d / "a.grib")


@case("GRIB: a section that claims 2^32 bytes", 10)
def _(d: Path, r: random.Random) -> Any:
    path = grib(d / "a.grib")
    content = bytearray(path.read_bytes())
    content[16:20] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    return grib_source(path)


# ------------------------------------------------------------------ code

_PICKLE = pickle.dumps(print)

for _name, _change in {
    "a pickle as filter": {"filters": [{"id": "pickle", "protocol": 5}]},
    "a pickle as second filter": {"filters": [{"id": "delta", "dtype": "<f4"}, {"id": "pickle"}]},
    "a pickle as compressor": {"compressor": {"id": "pickle", "protocol": 5}},
    "objects by pickle": {"dtype": "|O", "filters": [{"id": "pickle"}]},
    "objects by json2": {"dtype": "|O", "filters": [{"id": "json2"}]},
    "objects by msgpack2": {"dtype": "|O", "filters": [{"id": "msgpack2"}]},
    "objects by vlen-array": {"dtype": "|O", "filters": [{"id": "vlen-array", "dtype": "<f4"}]},
    "objects by nothing": {"dtype": "|O", "filters": None},
    "an unknown codec": {"compressor": {"id": "my_codec"}},
    "a codec of a path": {"compressor": {"id": "../../pickle"}},
}.items():

    def _coded(d: Path, r: random.Random, c: Any = _change) -> Any:
        path = zarray(store(d / "a.zarr", **PLAIN2), **c)
        (path / "ta" / "0.0.0").write_bytes(_PICKLE)
        return source(path)

    add(f"Zarr 2: {_name}", _coded, 60)

    def _consolidated(d: Path, r: random.Random, c: Any = _change) -> Any:
        path = store(d / "a.zarr", zarr_format=2, consolidated=True)
        document = json.loads((path / ".zmetadata").read_text())
        document["metadata"]["ta/.zarray"].update(c)
        (path / ".zmetadata").write_text(json.dumps(document))
        return source(path)

    if "pickle" in _name:
        add(f"Zarr 2 consolidated: {_name}", _consolidated, 60)


@case("texts that claim four billion", 10)
def _(d: Path, r: random.Random) -> Any:
    path = store(d / "a.zarr", labelled(), zarr_format=2, consolidated=False)
    zarray = json.loads((path / "member" / ".zarray").read_text())
    zarray.update(dtype="|O", filters=[{"id": "vlen-utf8"}], compressor=None, fill_value=None)
    (path / "member" / ".zarray").write_text(json.dumps(zarray))
    (path / "member" / "0").write_bytes(b"\xff\xff\xff\xff" + bytes(64))
    return source(path, select={"member": "r1"})


def labelled() -> xr.Dataset:
    both = xr.concat([regular(20), regular(20, seed=1)], "member")
    return both.assign_coords(member=["r1", "r2"]).transpose("time", "member", "lat", "lon")


@case("members told by texts", 0)
def _(d: Path, r: random.Random) -> Any:
    return source(store(d / "a.zarr", labelled(), **PLAIN2), select={"member": "r1"})


for _name, _write in {
    "a .npy file with a pickle": lambda p: np.save(p, np.array([print], object), allow_pickle=True),
    "a pickle": lambda p: p.write_bytes(_PICKLE),
    "a .npz file": lambda p: np.savez(p, a=np.zeros(3)),
    "YAML that makes an object": lambda p: p.write_text("!!python/object/apply:os.system ['true']"),
    "a shell script": lambda p: p.write_text("#!/bin/sh\nexit 1\n"),
    "an empty file": lambda p: p.write_bytes(b""),
    "random bytes": lambda p: p.write_bytes(random.Random(1).randbytes(4096)),
    "a gzip file": lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(100)),
    "a web page": lambda p: p.write_text("<!DOCTYPE html><html></html>"),
    "HDF4": lambda p: p.write_bytes(b"\x0e\x03\x13\x01" + bytes(100)),
    "only the first bytes of HDF5": lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
}.items():

    def _written(d: Path, r: random.Random, w: Any = _write) -> Any:
        path = d / (
            "a.npz"
            if "npz" in str(w.__code__.co_names) or "savez" in w.__code__.co_names
            else "a.npy"
        )
        w(path)
        return source(path)

    add(_name, _written, 10)


# ------------------------------------------------------------------ other files, other hosts


def references(d: Path, **changes: Any) -> Path:
    """kerchunk references to the chunks of a store beside them; `ta/1.0.0` is changed."""
    made = store(d / "a.zarr", **PLAIN2)
    found: dict[str, Any] = {}
    for file in sorted(made.rglob("*")):
        if file.is_file():
            key = file.relative_to(made).as_posix()
            size = file.stat().st_size
            found[key] = file.read_text() if file.name[:2] == ".z" else [str(file), 0, size]
    found.update({key.replace("_", "/", 1): value for key, value in changes.items()})
    path = d / "refs.json"
    path.write_text(json.dumps({"version": 1, "refs": found}))
    return path


add("kerchunk references", lambda d, r: source(references(d)), 0)
for _name, _target, _code in (
    ("to /etc/passwd", ["/etc/passwd", 0, 100], 60),
    ("out of their directory", ["../../../../../../etc/passwd", 0, 10], 60),
    ("to a file by its URL", ["file:///etc/passwd", 0, 10], 60),
    ("to another host", ["http://127.0.0.1:9/x", 0, 10], 60),
    ("to a bucket", ["s3://bucket/x", 0, 10], 60),
    ("to the metadata of a cloud", ["http://169.254.169.254/latest", 0, 10], 60),
    ("through a chain", ["simplecache::/etc/passwd", 0, 10], 60),
    ("to a pipe", ["/dev/stdin", 0, 10], 60),
    ("to nothing", [], 10),
    ("to a number", [7, 0, 10], 60),
    ("to a list", [["a"], 0, 10], 60),
):

    def _refer(d: Path, r: random.Random, t: Any = _target) -> Any:
        return source(references(d, **{"ta_1.0.0": t}))

    add(
        f"kerchunk references {_name}",
        _refer,
        *((10, 60) if _name in ("to a number", "to a list") else (_code,)),
    )

for _name, _place in {
    "before the beginning": (-10, 10),
    "beyond the end": (10**9, 10),
    "of negative length": (0, -1),
    "of a fraction": (0.5, 1),
    "of text": ("a", "b"),
}.items():

    def _range(d: Path, r: random.Random, p: Any = _place) -> Any:
        return source(references(d, **{"ta_1.0.0": [str(d / "a.zarr/ta/1.0.0"), *p]}))

    add(f"kerchunk references to bytes {_name}", _range, 10)


@case("kerchunk references with templates", 10)
def _(d: Path, r: random.Random) -> Any:
    path = references(d)
    path.write_text(json.dumps({**json.loads(path.read_text()), "templates": {"u": "{{ 1 }}"}}))
    return source(path)


@case("kerchunk references with a pickle codec", 60)
def _(d: Path, r: random.Random) -> Any:
    path = references(d)
    array = json.loads(json.loads(path.read_text())["refs"]["ta/.zarray"])
    return source(
        references(d, **{"ta_.zarray": json.dumps({**array, "compressor": {"id": "pickle"}})})
    )


@case("JSON a hundred thousand deep", 10)
def _(d: Path, r: random.Random) -> Any:
    (d / "refs.json").write_text('{"a":' * 100_000)
    return source(d / "refs.json")


@case("JSON that is a list", 10)
def _(d: Path, r: random.Random) -> Any:
    (d / "refs.json").write_text('{"refs": [1, 2, 3]}')
    return source(d / "refs.json")


def _secret(d: Path) -> Path:
    outside = d / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret" * 100)
    return outside


def linked(d: Path, make: Callable[[Path, Path], None]) -> Any:
    path = store(d / "a.zarr", **PLAIN2)
    make(path / "ta" / "1.0.0", _secret(d))
    return source(path)


def _replace(chunk: Path, target: Any) -> None:
    chunk.unlink()
    chunk.symlink_to(target)


def _pipe(chunk: Path, outside: Path) -> None:
    chunk.unlink()
    os.mkfifo(chunk)


def _whole_array(chunk: Path, outside: Path) -> None:
    array = chunk.parent
    shutil.move(array, outside / "ta")
    array.symlink_to(outside / "ta")


add(
    "a store with a link to /etc/passwd",
    lambda d, r: linked(d, lambda c, o: _replace(c, "/etc/passwd")),
    60,
)
add(
    "a store with a link to a file beside it",
    lambda d, r: linked(d, lambda c, o: _replace(c, o / "secret")),
    60,
)
add(
    "a store with a link to a device",
    lambda d, r: linked(d, lambda c, o: _replace(c, "/dev/zero")),
    60,
)
add(
    "a store with a link to nothing",
    lambda d, r: linked(d, lambda c, o: _replace(c, "/nowhere")),
    60,
)
add("a store with a link to itself", lambda d, r: linked(d, lambda c, o: _replace(c, c)), 10, 60)
add("a store with a pipe", lambda d, r: linked(d, _pipe), 60)
add("a store with an array that is a link", lambda d, r: linked(d, _whole_array), 60)
add(
    "a store with a link within it",
    lambda d, r: linked(d, lambda c, o: (shutil.move(c, c.with_name("x")), c.symlink_to("x"))[1]),
    0,
)


def _external(file: Any, d: Path) -> None:
    import h5py

    (d / "other.h5").write_bytes(b"")
    file["ta_elsewhere"] = h5py.ExternalLink(str(d / "other.h5"), "/ta")


def _elsewhere(file: Any, d: Path) -> None:
    _dataset(file, external=[("/etc/passwd", 0, 20 * 4 * 8 * 4)])


def _virtual(file: Any, d: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((20, 4, 8), "f4")
    layout[:] = h5py.VirtualSource(str(d / "other.h5"), "ta", (20, 4, 8))
    old = {k: v for k, v in file["ta"].attrs.items() if k == "units"}
    del file["ta"]
    file.create_virtual_dataset("ta", layout).attrs.update(old)


def _foreign_filter(file: Any, d: Path) -> None:
    import h5py

    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((5, 4, 8))
    made.set_filter(32013, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((20, 4, 8))
    h5py.h5d.create(file.id, b"zfp", h5py.h5t.NATIVE_FLOAT, space, made)


def _cycle(file: Any, d: Path) -> None:
    one = file.create_group("one").create_group("two")
    one["back"] = file["one"]
    one["root"] = file["/"]


def _soft(file: Any, d: Path) -> None:
    import h5py

    file["soft"] = h5py.SoftLink("/soft")
    file["none"] = h5py.SoftLink("/nothing")


def _objects(file: Any, d: Path) -> None:
    for number in range(300):
        file.create_group(f"g{number}")


add("HDF5 with a link into another file", lambda d, r: source(hdf5(d, _external)), 60)
add("HDF5 with values in /etc/passwd", lambda d, r: source(hdf5(d, _elsewhere)), 60)
add("HDF5 with a virtual dataset", lambda d, r: source(hdf5(d, _virtual)), 60)
add("HDF5 with a filter of a plugin", lambda d, r: source(hdf5(d, _foreign_filter)), 60)
add("HDF5 with groups in a circle", lambda d, r: source(hdf5(d, _cycle)), 0, 10)
add("HDF5 with soft links to nothing", lambda d, r: source(hdf5(d, _soft)), 0, 10)
add("HDF5 with many groups", lambda d, r: source(hdf5(d, _objects)), 0)

for _name, _path, _code in (
    ("a chain of file systems", "simplecache::http://example.org/a.zarr", 60),
    ("a zip in a chain", "zip://a.nc::/etc/passwd", 60),
    ("an address with a password", "https://me:secret@example.org/a.zarr", 60),
    ("an address with a signature", "https://example.org/a.zarr?sig=secret", 60),
    ("FTP", "ftp://example.org/a.nc", 10),
    ("a file by its URL", "file:///etc/passwd", 10),
    ("OPeNDAP", "dods://example.org/a", 10),
    ("an address that goes up", "https://example.org/a/../../b.zarr", 10),
    ("a path with a line break", "a\nb.nc", 60),
    ("a path with an escape", "\x1b[2J.nc", 60),
    ("a path with a zero", "a\0b.nc", 60),
    ("a path that is empty", "", 10),
    ("a path of 100,000 letters", "a" * 100_000, 10),
    ("a path that is not there", "nowhere/*.nc", 10),
    ("/dev/zero", "/dev/zero", 60),
    ("/dev/null", "/dev/null", 60),
    ("/etc/passwd", "/etc/passwd", 10),
    ("the root of the disk", "/", 10),
    ("/proc/self/mem", "/proc/self/mem", 31),
):
    add(f"paths: {_name}", lambda d, r, p=_path: source(p), _code)


@case("a pipe in place of a file", 60)
def _(d: Path, r: random.Random) -> Any:
    os.mkfifo(d / "a.nc")
    return source(d / "a.nc")


@case("a socket in place of a file", 60)
def _(d: Path, r: random.Random) -> Any:
    folder = os.open(d, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/a.nc")
    return source(d / "a.nc")


@case("a directory in place of a file", 10)
def _(d: Path, r: random.Random) -> Any:
    (d / "a.nc").mkdir()
    return source(d / "a.nc")


@case("a file that may not be read", 10, unprivileged=True)
def _(d: Path, r: random.Random) -> Any:
    netcdf(d / "a.nc").chmod(0)
    return source(d / "a.nc")


@case("a link to a file", 0)
def _(d: Path, r: random.Random) -> Any:
    (d / "b.nc").symlink_to(netcdf(d / "a.nc"))
    return source(d / "b.nc")


for _name in ("../ta", "ta/tb", "ta\n", "ta\x1b[2J", "", "a" * 300 + "\0", ".ta", "ta@x", "тa "):
    add(
        f"variables: {_name[:12]!r}",
        lambda d, r, n=_name: source(netcdf(d / "a.nc"), variables=[n]),
        10,
    )


@case("names in a file that hold control characters", 10)
def _(d: Path, r: random.Random) -> Any:
    import netCDF4

    netcdf(d / "a.nc")
    with netCDF4.Dataset(d / "a.nc", "a") as file:
        file.renameVariable("ta", "t\u009b2Ja")
    return source(d / "a.nc")


add("groups: one that goes up", lambda d, r: source(netcdf(d / "a.nc"), group="../.."), 10)
add("groups: one that goes up in Zarr", lambda d, r: source(store(d / "a.zarr"), group="../x"), 10)
