"""Imports run one way, and each outside library has its own door."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SERVICE = Path(__file__).parent.parent / "service"

# A module may import from the rungs above its own, and from its own package.
LAYERS = [
    ("client",),
    ("bridges",),
    ("errors", "settings", "demo"),
    ("domain", "telemetry"),
    ("compute",),
    ("learning",),
    ("store", "strategies"),
    ("auth", "backends", "usecases"),
    ("http",),
    ("server",),
    ("app", "cli"),
]

# The same inside `http`, where a rung may name one module of a folder.
HTTP_LAYERS = [
    ("media_types", "problem_document"),
    ("body", "contract", "csv_writer", "parquet_writer", "responses"),
    ("plots",),
    ("docs", "middleware", "pages", "schemas"),
    ("problems",),
    ("project_archive", "tables"),
    ("routes",),
    ("contract.openapi",),
]

# These families hold the scorers that other families build on; each may import those before it.
SCORER_FAMILIES = ["service.strategies.uncertainty", "service.strategies.committee"]

# Where each library may be imported: a prefix of the module's name.
DOORS = {
    "flask": ("service.http", "service.app"),
    "werkzeug": ("service.http",),
    "marshmallow": ("service.http",),
    "joblib": ("service.store", "service.compute.threads"),
    "pickle": ("service.store", "service.compute.child_process"),
    "orjson": ("service.http", "service.store.events", "service.store.idempotency", "service.telemetry.logging"),
    "backports": ("service.http.body.encodings",),
    "pyarrow": ("service.cli.parquet", "service.http.body.formats.table_reader", "service.http.parquet_writer"),
    "zlib_ng": ("service.store",),
    "prometheus_client": ("service.telemetry.multiprocess", "service.telemetry.metrics"),
    "apispec": ("service.http.contract.openapi",),
    "yaml": ("service.http.contract.openapi", "service.http.docs"),
    "jinja2": ("service.http.docs", "service.http.pages"),
    "markdown_it": ("service.http.docs",),
    "matplotlib": ("service.demo.report", "service.http.plots.drawing"),
    "onnxruntime": ("service.learning.embedders",),
    "tokenizers": ("service.learning.embedders",),
    "distributed": ("service.backends.dask",),
    "skops": ("service.learning.model_formats",),
    "skl2onnx": ("service.learning.model_formats",),
    "ray": ("service.backends.ray",),
    "numba": (
        "service.learning.jit",
        "service.learning.lanes",
        "service.learning.linear_kernel",
        "service.learning.tree_kernel",
    ),
    "llvmlite": ("service.learning.lanes",),
    "gunicorn": ("service.server.gunicorn_adapter",),
    "click": ("service.cli", "service.demo"),
}

MODULES = {
    ".".join(path.relative_to(SERVICE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SERVICE.rglob("*.py"))
}


@cache
def imports(path: Path, *, only_inside: bool = False) -> set[str]:
    """The names of the modules that a file imports: all of them, or only those that a function imports."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [below for root in (functions if only_inside else [tree]) for below in ast.walk(root)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module or "" for name in names}
    return found


def layer(module: str) -> int:
    """The rung of a module."""
    name = module.split(".")[1]
    return next(level for level, names in enumerate(LAYERS) if name in names)


def http_room(module: str) -> tuple[int, str]:
    """The rung and the room of a module of `http`: the longest of HTTP_LAYERS that its name begins with."""
    name = module.removeprefix("service.http.")
    rooms = [(level, room) for level, names in enumerate(HTTP_LAYERS) for room in names]
    return max((each for each in rooms if f"{name}.".startswith(f"{each[1]}.")), key=lambda each: len(each[1]))


def test_each_room_is_on_one_rung_and_has_its_folder_of_tests() -> None:
    rooms = {path.parent.name for path in SERVICE.glob("*/__init__.py")}
    loose = {path.stem for path in SERVICE.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(name for names in LAYERS for name in names) == sorted(rooms | loose)
    assert rooms <= {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("service", "service.__main__")])
def test_imports_run_one_way(module: str) -> None:
    ours = {name for name in imports(MODULES[module]) if name.startswith("service.")}
    own = module.split(".")[1]
    outward = {name for name in ours if layer(name) >= layer(module) and name.split(".")[1] != own}
    assert not outward


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("service.http.")])
def test_imports_inside_http_run_one_way(module: str) -> None:
    level, own = http_room(module)
    ours = [http_room(name) for name in imports(MODULES[module]) if name.startswith("service.http.")]
    assert not {room for other, room in ours if other >= level and room != own}


def test_strategies_import_the_engine_and_scorers_but_no_other_strategies() -> None:
    families = {name for name in MODULES if name.startswith("service.strategies.") and ".engine" not in name}
    for module in MODULES:
        if module.startswith("service.strategies.engine"):
            assert not imports(MODULES[module]) & families, module
        if module in families:
            rank = SCORER_FAMILIES.index(module) if module in SCORER_FAMILIES else len(SCORER_FAMILIES)
            assert imports(MODULES[module]) & families <= {*SCORER_FAMILIES[:rank]}, module


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_is_imported_only_at_its_door(library: str) -> None:
    importers = {m for m, path in MODULES.items() if any(n.split(".")[0] == library for n in imports(path))}
    assert importers == {m for m in importers if m.startswith(DOORS[library])}
    assert importers, f"nothing imports {library} any more"


def test_only_settings_and_the_launchers_read_the_environment() -> None:
    readers = {module for module, path in MODULES.items() if "os.environ" in path.read_text()}
    # serve, demo, simulations, fits and gunicorn's hooks pass an environment on to a child, or read what `serve` set.
    launchers = {
        "service.cli.setting_options",
        "service.cli.serve",
        "service.compute.child_process",
        "service.demo.serving",
        "service.server.hooks",
        "service.server.simulation_process",
        "service.telemetry.multiprocess",
    }
    assert readers <= {"service.settings", *launchers}


def test_no_import_inside_a_function_but_for_an_extra() -> None:
    inside = {(module, name) for module, path in MODULES.items() for name in imports(path, only_inside=True)}
    assert inside <= {
        ("service.cli.openapi", "service.http.contract.openapi"),
        ("service.cli.demo", "service.demo"),
        ("service.cli.sample_files", "service.cli.parquet"),
        ("service.http.plots.render", "service.http.plots.drawing"),
        ("service.http.routes.predictions", "service.http.parquet_writer"),
        *(("service.learning.model_formats", name) for name in ("skops.io", "skl2onnx", "skl2onnx.common.data_types")),
        ("service.learning.embeddings", "service.learning.embedders"),
        ("service.backends", "service.backends.dask"),
        ("service.backends", "service.backends.ray"),
    }


def test_a_service_imports_what_computes_once_and_after_its_start() -> None:
    code = "import sys, service.cli.serve, service.server.start, service.server.hooks; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "sklearn", "service.telemetry.metrics", "service.app"} & {*found}


def test_the_help_of_the_command_line_imports_nothing_that_computes_or_serves() -> None:
    code = "import sys, service.cli.main as cli; cli.main(['--help'], standalone_mode=False); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in found if name.startswith("service.")} == {"service.cli", "service.cli.main"}
    assert not {"numpy", "http.client", "asyncio", "flask"} & {*found}


def test_the_reader_of_tables_imports_only_its_errors() -> None:
    code = "import sys, service.http.body.formats.table_reader; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = "service service.http service.http.body service.http.body.formats service.http.body.formats.table_reader"
    ours += " service.http.body.formats.wrong_tables"
    assert {name for name in found if name.split(".")[0] == "service"} == {*ours.split()}
    assert not {"flask", "sklearn", "scipy", "joblib", "pandas"} & {*found}


def test_there_is_no_ring_of_imports() -> None:
    graph = {module: {n for n in imports(path) if n in MODULES} - {module} for module, path in MODULES.items()}
    while leaves := {module for module, below in graph.items() if not below & graph.keys()}:
        graph = {module: below for module, below in graph.items() if module not in leaves}
    # cli imports openapi and demo only when it is asked to.
    assert not graph
