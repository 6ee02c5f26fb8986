"""Private names of other libraries: used only where nothing public does it, and watched here."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import GzipCodec
from zarr.codecs._v2 import V2Codec

HOUSE = Path(__file__).parent.parent
PACKAGES = ("pipeline", "storage", "flows", "spherescore")
USED = {
    "storage/guards/codecs.py": {"_decode_single", "zarr.codecs._v2"},
    "storage/sources/formats/grib.py": {"_data"},
    "storage/sources/formats/zarr.py": {"_store"},  # what zarr's WrapperStore wraps
}


def strange(text: str) -> set[str]:
    """Private attributes and modules that a file uses and does not define."""
    tree = ast.parse(text)
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    stored = (n for n in ast.walk(tree) if isinstance(getattr(n, "ctx", None), ast.Store))
    own |= {getattr(n, "attr", getattr(n, "id", "")) for n in stored}
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    found = {name for name in attributes if name.startswith("_") and not name.startswith("__")}
    found |= {n.module for n in imports if n.module and "._" in n.module and ".__" not in n.module}
    return found - own - {"_exit", "_apply", "_require_sparse", "_log_densities"}


def test_no_other_private_names_are_used() -> None:
    files = (file for package in PACKAGES for file in (HOUSE / package).rglob("*.py"))
    found = {
        str(file.relative_to(HOUSE)): names
        for file in files
        if (names := strange(file.read_text(encoding="utf-8")))
    }
    assert found == USED


@pytest.mark.parametrize(("version", "kind"), [(2, V2Codec), (3, GzipCodec)])
def test_zarr_decodes_chunks_by_the_method_that_is_guarded(
    version: Any, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Any] = {"shape": (4,), "dtype": "f4", "zarr_format": version}
    array = zarr.create_array(
        tmp_path / "a", compressors=GzipCodec() if version == 3 else "auto", **known
    )
    array[:] = np.arange(4)

    async def seen(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(kind, "_decode_single", seen)
    with pytest.raises(InterruptedError):
        zarr.open_array(tmp_path / "a", mode="r")[:]


def test_xarray_keeps_the_array_of_a_file_below_wrappers_that_lead_to_it(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", np.arange(3.0))}).to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", engine="netcdf4") as opened:
        found = opened["a"].variable._data
        while not hasattr(found, "datastore"):
            found = found.array
