"""The import laws of the three packages and of their wings, read from the AST; no pickles."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
PACKAGES = ("pipeline", "storage", "flows")
FORBIDDEN_IN = {  # package: what none of its files imports
    "pipeline": {"storage", "flows", "prefect", "distributed", "zarr", "netCDF4", "h5netcdf"},
    "storage": {"pipeline", "flows", "prefect", "distributed", "torch"},
    "flows": set[str](),
}
# A wing imports those before it, lazy imports counted.
LADDERS = {
    "pipeline": (
        *("errors", "arrays", "sphere", "gaussian", "fields", "diffusion", "given", "scores"),
        *("certificate", "network"),
    ),
    "storage": (
        *("errors", "places", "conventions", "guards", "sources", "artifacts", "training"),
        "export",
    ),
    "flows": (
        *("errors", "progress", "config", "processes", "cluster", "report", "stages", "plan"),
        *("run", "view", "deployments", "cli"),
    ),
}
NAMING_ALL = ("flows.stages.content_keys",)  # says of each wing whether it computes anything
MOST_MODULES = 16  # of a folder
MOST_LINES = 60  # of a function, without its signature and its docstring
UNSAFE_MODULES = {
    *("pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "yaml", "tarfile"),
    *("telnetlib", "ftplib", "xmlrpc", "code", "codeop"),
}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.jit.load"),
    *("os.system", "os.popen"),
    *("tempfile.mktemp", "shutil.unpack_archive"),
}
UNSAFE_METHODS = {"extractall", "extract", "to_pickle", "read_pickle"}


def imported(source: str) -> set[str]:
    """Top-level names of all modules imported anywhere in a file, with `dask.distributed` whole."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what a file knows"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _dotted(node.func).endswith("import_module"):
            modules = [a.value for a in node.args if isinstance(a, ast.Constant)]
        else:
            continue
        for module in map(str, modules):
            distributed = module.startswith("dask.distributed")
            names.add("distributed" if distributed else module.split(".")[0])
    return names


def broken_laws(package: str, source: str) -> list[str]:
    """One sentence for each law that a file of `package` breaks."""
    known = imported(source)
    laws = [f"{package} imports {name}" for name in sorted(known & FORBIDDEN_IN[package])]
    if package == "pipeline" and {"torch", "xarray"} <= known:
        laws.append("a file of pipeline imports both torch and xarray")
    laws += [f"imports {name}" for name in sorted(known & UNSAFE_MODULES)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if _dotted(node.func) in UNSAFE_CALLS:
                laws.append(f"calls {_dotted(node.func)}")
            if _dotted(node.func).rpartition(".")[2] in UNSAFE_METHODS:
                laws.append(f"calls {_dotted(node.func)}")
            if any(word.arg == "shell" and not _is(word.value, False) for word in node.keywords):
                laws.append("starts a shell")
            if any(
                word.arg == "allow_pickle" and not _is(word.value, False) for word in node.keywords
            ):
                laws.append("allows pickles")
    return laws


def arrows(package: str, path: Path) -> Iterator[tuple[str, str]]:
    """From a module to each of the same package that it imports, wherever in the file."""
    own = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if _is_module(name)] or [node.module]
        else:
            continue
        yield from ((own, name) for name in modules if name.startswith(f"{package}."))


def programs(package: str, path: Path) -> Iterator[tuple[str, str]]:
    """From a module to each of the same package that it names in a text, to be run elsewhere."""
    own = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if re.fullmatch(rf"{package}(\.\w+)+", name) and _is_module(name):
                yield own, name


def upward(package: str) -> list[str]:
    """The arrows of a package that run against the order of its wings."""
    wings = LADDERS[package]
    found = []
    for path in sorted((HOUSE / package).rglob("*.py")):
        for importer, imported_ in (*arrows(package, path), *programs(package, path)):
            above, below = importer.split(".")[1], imported_.split(".")[1]
            if wings.index(below) > wings.index(above) and importer not in NAMING_ALL:
                found.append(f"{importer} imports {imported_}")
    return found


@pytest.mark.parametrize("package", sorted(LADDERS))
def test_every_wing_stands_on_those_before_it(package: str) -> None:
    there = {path.relative_to(HOUSE / package).parts[0] for _, path in files_of(package)}
    assert {name.removesuffix(".py") for name in there} - {"__init__"} == set(LADDERS[package])
    assert upward(package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    known: dict[str, set[str]] = {}
    for _, path in files_of(package):
        for importer, imported_ in arrows(package, path):
            known.setdefault(importer, set()).add(imported_)
    try:
        list(TopologicalSorter(known).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_modules_than_can_be_taken_in_at_a_glance(package: str) -> None:
    """`__init__` is no module that one looks for."""
    counts: dict[Path, int] = {}
    for _, path in files_of(package):
        if path.stem != "__init__":
            counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_longer_than_a_screen(package: str) -> None:
    """Counted from the first statement after the docstring to the last one: blank lines and
    comments count, decorators, signature and docstring do not; functions inside count as lines."""
    assert [
        f"{path.relative_to(HOUSE)}: {function.name} has {count} lines"
        for _, path in files_of(package)
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if (count := lines_of(function)) > MOST_LINES
    ] == []


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the code of a function."""
    said = ast.get_docstring(function) is not None
    code = function.body[1:] if said else function.body
    return (code[-1].end_lineno or 0) - code[0].lineno + 1 if code else 0


@pytest.mark.parametrize(
    ("lines", "docstring"), [(1, ""), (7, ""), (7, '"""Says it.\n\n    More.\n    """')]
)
def test_lines_of_a_function_are_those_of_its_code(lines: int, docstring: str) -> None:
    head = f"def f(\n    a,\n    b,\n):\n    {docstring}\n" if docstring else "def f(\n    a\n):\n"
    (function,) = ast.parse(head + "    a = 1\n" * lines).body
    assert isinstance(function, ast.FunctionDef)
    assert lines_of(function) == lines


def files_of(package: str) -> Iterator[tuple[str, Path]]:
    return ((one, path) for one, path in files() if one == package)


def files() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((HOUSE / package).rglob("*.py")):
            yield package, path


@pytest.mark.parametrize(
    ("package", "path"), list(files()), ids=lambda value: getattr(value, "stem", value)
)
def test_every_file_keeps_the_laws_of_its_package(package: str, path: Path) -> None:
    assert broken_laws(package, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("pipeline", "import storage.artifacts.layout"),
        ("pipeline", "from flows import config"),
        ("pipeline", "def f():\n    import prefect"),
        ("pipeline", "from dask import distributed"),
        ("pipeline", "from dask.distributed import Client"),
        ("pipeline", "import importlib\nimportlib.import_module('storage.artifacts.publishing')"),
        ("pipeline", "import torch.nn as nn\nfrom xarray import Dataset"),
        ("storage", "from pipeline.sphere.grid import RingGrid"),
        ("storage", "import torch"),
        ("storage", "if True:\n    from distributed import Client"),
        ("flows", "import pickle"),
        ("flows", "import torch\ntorch.load('x')"),
        ("flows", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        ("flows", "eval('1')"),
        ("flows", "import subprocess\nsubprocess.run('ls', shell=True)"),
        ("flows", "import os\nos.system('ls')"),
        ("storage", "import zipfile\nzipfile.ZipFile('x').extractall()"),
        ("storage", "import tarfile"),
        ("storage", "import pandas as pd\npd.read_pickle('x')"),
        ("pipeline", "import yaml\nyaml.load('x')"),
    ],
)
def test_a_file_that_breaks_a_law_is_found(package: str, source: str) -> None:
    assert len(broken_laws(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("pipeline", "import torch\nimport numpy as np\nimport dask.array"),
        ("pipeline", "import xarray as xr\nfrom pipeline.sphere.grid import RingGrid"),
        ("storage", "import zarr\nimport xarray\nnp.load('x', allow_pickle=False)"),
        ("flows", "import prefect\nimport torch\nimport xarray\nfrom storage import artifacts"),
    ],
)
def test_a_file_that_keeps_the_laws_is_let_through(package: str, source: str) -> None:
    assert broken_laws(package, source) == []


def test_there_are_files_to_look_at() -> None:
    assert {package for package, _ in files()} == set(PACKAGES)


def _is_module(name: str) -> bool:
    place = HOUSE.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
