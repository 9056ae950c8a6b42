"""The plugin host with real distributions: discovered, isolated when broken, reported by name, never fatal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peftselect import hookspecs
from peftselect.errors import PluginError
from peftselect.plugin_manager import DATA_PACKAGES, DISABLE_VARIABLE, MODULE_PACKAGES, PluginHost
from tests.conftest import ROOT

HOOKS = sorted(name for name, item in vars(hookspecs).items() if hasattr(item, "peftselect_spec"))
METHOD = """
from peftselect import ALL_HEADS, Hyperparameter, Method, Reference, Structure, hookimpl


class {cls}(Method):
    name = "{name}"
    title = "{cls}"
    summary = "A method of a test."
    family = "selective"
    structure = Structure("none", "none", "original", "none", "weights", "none", "none", "none", "none")
    references = (Reference("A test", "https://example.org", 2024),)

    def hyperparameters(self, shape):
        return [Hyperparameter("learning_rate", 1e-3, "float", "step size", low=0.0, high=1.0)]

    def trainable_parameters(self, shape, values):
        return 1


@hookimpl
def register_methods():
    return ({cls},)
"""


@dataclass
class Site:
    """A folder of installed distributions, to be put on ``sys.path``."""

    folder: Path
    modules: list[str] = field(default_factory=list)

    def install(self, name: str, source: str, *, distribution: str = "", entry: str = "") -> None:
        """Install a module with an entry point, as pip would: the module, and a .dist-info folder beside it."""
        module = f"ps_test_{name}"
        (self.folder / f"{module}.py").write_text(source)
        distribution = distribution or f"peftselect-{name}"
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[peftselect]\n{entry or name} = {module}\n")
        self.modules.append(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = Site(folder)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)


def method(name: str, cls: str = "Tried") -> str:
    """Source of a plugin module with one working method."""
    return METHOD.format(name=name, cls=cls)


def test_a_good_plugin_is_found_and_named(site: Site) -> None:
    site.install("good", method("tried"), distribution="some-good-distribution")
    host = PluginHost.load()
    assert host.broken == {}
    assert host.origins["good"] == "some-good-distribution"
    assert host.method("tried").title == "Tried"
    assert host.method("Tried") is host.methods()["tried"]
    assert "tried" not in PluginHost.load(external=False).methods()


BROKEN = {
    "import": ("raise RuntimeError('no card\\nin this machine')", "RuntimeError: no card"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "missing_module": ("import there_is_no_such_module", "ModuleNotFoundError: No module named"),
    "exit_at_import": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "hook": (
        "from peftselect import hookimpl\n@hookimpl\ndef register_methods():\n    raise ValueError('not today')\n",
        "ValueError: not today",
    ),
    "exit_in_hook": (
        "from peftselect import hookimpl\n@hookimpl\ndef register_methods():\n    raise SystemExit(3)\n",
        "SystemExit: 3",
    ),
    "unknown_hook": (
        "from peftselect import hookimpl\n@hookimpl\ndef register_method():\n    return ()\n",
        "PluginValidationError: unknown hook 'register_method'",
    ),
    "no_iterable": (
        "from peftselect import hookimpl\n@hookimpl\ndef register_methods():\n    return 7\n",
        "TypeError: 'int' object is not iterable",
    ),
    "no_class": (
        "from peftselect import hookimpl\n@hookimpl\ndef register_methods():\n    return ['lora']\n",
        "PluginError: 'lora' is not a Method class",
    ),
    "attributes": (
        method("lacking").replace('    summary = "A method of a test."\n', ""),
        "PluginError: Tried lacks summary",
    ),
    "abstract": (
        method("lacking").replace("def trainable_parameters", "def other_parameters"),
        "TypeError: Can't instantiate abstract class Tried",
    ),
    "name_of_a_built_in": (method("lora"), "PluginError: method 'lora' is already registered"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_is_reported_by_name_and_the_others_live(site: Site, name: str) -> None:
    source, reason = BROKEN[name]
    site.install(f"a_{name}", source)
    site.install("z_good", method("tried"))
    host = PluginHost.load()
    assert list(host.broken) == [f"a_{name}"]
    assert reason in host.broken[f"a_{name}"]
    assert "\n" not in host.broken[f"a_{name}"]
    assert f"a_{name}" not in host.origins
    assert {"tried", "lora"} <= set(host.methods())
    assert host.rule_files() and host.record_files()


def test_of_two_plugins_with_one_method_name_the_second_is_left_out(site: Site) -> None:
    site.install("first", method("tried", "One"))
    site.install("second", method("tried", "Two"))
    host = PluginHost.load()
    assert host.method("tried").title == "One"
    assert host.broken == {"second": "PluginError: method 'tried' is already registered"}


def test_an_entry_point_may_not_take_the_name_of_another_plugin(site: Site) -> None:
    site.install("shadow", method("tried"), entry="lora")
    host = PluginHost.load()
    assert host.broken == {"lora (peftselect-shadow)": "a plugin of this name is already loaded"}
    assert host.origins["lora"] == "built in"


def test_an_interrupt_is_not_swallowed(site: Site) -> None:
    site.install("stopped", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        PluginHost.load()


def test_plugins_can_be_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("good", method("tried"))
    site.install("bad", "raise RuntimeError('never imported')")
    monkeypatch.setenv(DISABLE_VARIABLE, "good, bad,lora,rules,")
    host = PluginHost.load()
    assert host.broken == {}
    assert not {"good", "bad", "lora", "rules"} & set(host.origins)
    assert not {"tried", "lora"} & set(host.methods())
    assert host.rule_files() == []


def test_a_built_in_method_name_is_free_once_the_built_in_is_switched_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("mine", method("lora"))
    monkeypatch.setenv(DISABLE_VARIABLE, "lora")
    host = PluginHost.load()
    assert host.broken == {}
    assert host.method("lora").title == "Tried"


def test_a_built_in_that_breaks_the_contract_is_a_bug_and_says_so() -> None:
    host = PluginHost.load(external=False)
    namespace: dict[str, object] = {"__name__": "another_built_in"}
    exec(method("lora"), namespace)  # a second "lora" among the built-ins
    other = type("Module", (), {"register_methods": staticmethod(namespace["register_methods"])})
    host.manager.register(other)
    with pytest.raises(PluginError, match="method 'lora' is in"):
        host.methods()


def test_the_command_line_survives_a_broken_plugin_and_names_it(site: Site, tmp_path: Path) -> None:
    site.install("bad", "import sys; sys.exit(9)")
    site.install("good", method("tried"))
    environment = {**os.environ, "PYTHONPATH": str(site.folder), "PEFTSELECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "peftselect", "plugins", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["broken"] == {"bad": "SystemExit: 9"}
    assert any(item["name"] == "good" and item["origin"] == "peftselect-good" for item in answer["plugins"])


def test_there_are_hooks_to_check() -> None:
    assert len(HOOKS) >= 4


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_real_user_among_the_built_ins(hook: str) -> None:
    host = PluginHost.load(external=False)
    caller = getattr(host.manager.hook, hook)
    users = [implementation.plugin.__name__ for implementation in caller.get_hookimpls()]
    assert users
    assert all(user.startswith((*MODULE_PACKAGES, *DATA_PACKAGES)) for user in users)
    assert any(len(list(batch)) for batch in caller())


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_signature(hook: str) -> None:
    specification = getattr(hookspecs, hook)
    assert specification.__doc__
    annotation = specification.__annotations__["return"]
    assert f"{hook}() -> {annotation}" in (ROOT / "plugins" / "README.md").read_text()


@pytest.mark.parametrize("package", MODULE_PACKAGES)
def test_every_module_of_a_plugin_folder_is_loaded(package: str) -> None:
    folder = ROOT / ("plugins" if package.endswith("plugins") else "peftselect/tasks")
    names = {path.stem for path in folder.glob("[!_]*.py")}
    assert names
    assert names <= set(PluginHost.load(external=False).origins)
