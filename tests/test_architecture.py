"""The laws of the house: layers, light imports, what plugins may use. Each check also fails on a planted violation."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import peftselect

ROOT = Path(__file__).parents[1]
#: a module may import only from the rows above its own; modules of one row do not import one another,
#: but for the pairs in BESIDE
LAYERS: list[set[str]] = [
    {"batching", "errors", "pareto", "resources", "words"},
    {"shape", "hyperparameter", "audio", "traits"},
    {"method", "task", "problem", "record"},
    {"technique", "stage"},
    {"hookspecs", "families", "tuners", "zeroth_order"},
    {"plugin_manager"},
    {"shapes", "vocabulary", "hardware", "columns"},
    {"base_models", "processors"},
    {"data", "example", "modeling"},
    {"data_checks", "facts", "loading", "metrics", "question"},
    {"tasks", "memory", "duration", "knowledge", "features", "results"},
    {"predictor", "catalogue", "importing", "results_plot"},
    {"selector"},
    {"training"},
    {"serving"},
    {"api"},
    {"suite", "testing"},
    {"cli"},
    {"__main__"},
]
BESIDE = {("problem", "task")}
HEAVY = {"torch", "transformers", "peft", "evaluate", "datasets", "sklearn", "scipy", "pandas", "accelerate"}
MAY_BE_HEAVY = {"training", "modeling", "tuners", "serving", "zeroth_order"}
RANK = {name: index for index, row in enumerate(LAYERS) for name in row}
MAPPED = ("plugins", "rules", "benchmarks")
MODULES = sorted((ROOT / "peftselect").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("[!_]*.py"))


def imports(source: str, *, top_level_only: bool) -> Iterator[str]:
    """Dotted names which ``source`` imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        function = top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if typing_only or function:
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The row of LAYERS that a file belongs to."""
    return path.relative_to(ROOT / "peftselect").parts[0].removesuffix(".py")


def may_be_heavy(path: Path) -> bool:
    """Whether a module of the engine may import torch and its kin at module level."""
    # metric modules subclass evaluate.Metric; the package imports them when something is computed
    metric = room(path) == "metrics" and path.name != "__init__.py"
    return room(path) in MAY_BE_HEAVY or "tracing" in path.parts or metric


def upward_imports(me: str, source: str) -> list[str]:
    """Imports of ``source`` (a module of the room ``me``) which the layers forbid."""
    wrong = []
    for name in imports(source, top_level_only=False):
        parts = name.split(".")
        if parts[0] != "peftselect" or len(parts) < 2 or parts[1] == me or (me, parts[1]) in BESIDE:
            continue
        if parts[1] in {"plugins"} or (parts[1] in RANK and RANK[parts[1]] >= RANK[me]):
            wrong.append(name)
    return wrong


def heavy_imports(source: str) -> set[str]:
    """Heavy packages which ``source`` imports at module level."""
    return {name.split(".")[0] for name in imports(source, top_level_only=True)} & HEAVY


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 20
    assert len(PLUGINS) > 5


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_from_lower_layers(path: Path) -> None:
    me = room(path)
    if me != "__init__":
        assert me in RANK, f"{me} has no place in LAYERS"
        assert upward_imports(me, path.read_text()) == []


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not may_be_heavy(path)] + PLUGINS,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_heavy_is_imported_at_module_level(path: Path) -> None:
    assert heavy_imports(path.read_text()) == set()


@pytest.mark.parametrize("path", MODULES + PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_click_and_rich_keep_to_their_rooms(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path.read_text(), top_level_only=False)}
    in_cli = "cli" in path.parts
    assert "click" not in used or in_cli
    assert "rich" not in used or path.name == "console.py"


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_built_in_methods_have_no_right_that_a_third_party_lacks(path: Path) -> None:
    own = {name for name in imports(path.read_text(), top_level_only=False) if name.split(".")[0] == "peftselect"}
    assert own - {"peftselect"} <= {f"peftselect.{name}" for name in peftselect.__all__}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_nothing_is_unpickled_and_no_remote_code_is_trusted() -> None:
    for path in MODULES + PLUGINS:
        source = path.read_text()
        assert not {"pickle", "joblib", "dill"} & {name.split(".")[0] for name in imports(source, top_level_only=False)}
        assert "trust_remote_code=True" not in source, path
        assert "weights_only=False" not in source, path


@pytest.mark.parametrize(
    ("me", "source"),
    [
        ("errors", "from peftselect.cli import main"),
        ("knowledge", "import peftselect.features"),
        ("selector", "def f():\n    from peftselect.training import job"),
        ("selector", "from peftselect.plugins import lora"),
    ],
)
def test_the_layer_check_sees_a_planted_violation(me: str, source: str) -> None:
    assert upward_imports(me, source)


def test_the_heavy_check_sees_a_planted_violation_and_allows_functions() -> None:
    assert heavy_imports("import torch.nn as nn") == {"torch"}
    assert heavy_imports("from transformers import Trainer") == {"transformers"}
    assert heavy_imports("def f():\n    import torch") == set()


def test_public_names_exist() -> None:
    assert len(set(peftselect.__all__)) == len(peftselect.__all__) > 20
    for name in peftselect.__all__:
        assert getattr(peftselect, name) is not None


def test_every_folder_with_modules_ships() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in MODULES} | {Path("peftselect", name) for name in MAPPED}
    assert sorted(packages) == sorted(".".join(folder.parts) for folder in folders)
