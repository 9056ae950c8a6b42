"""The plugin host: built-in methods and tasks, third parties' entry points, broken plugins kept apart."""

from __future__ import annotations

import importlib
import os
import pkgutil
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from peftselect import hookspecs
from peftselect.errors import PluginError, UnknownNameError, UnsupportedError
from peftselect.method import Method
from peftselect.stage import Stage
from peftselect.task import Task
from peftselect.technique import Technique, read_techniques

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

Registered = TypeVar("Registered", Method, Task, Stage)
#: whatever has a name in the catalogue
Entry = Method | Stage | Technique
Named = TypeVar("Named", Task, Stage, Entry)

GROUP = "peftselect"
DISABLE_VARIABLE = "PEFTSELECT_DISABLE_PLUGINS"
#: packages each of whose modules is a plugin, found by name
MODULE_PACKAGES = ("peftselect.plugins", "peftselect.tasks")
#: packages that are one plugin themselves (data folders: rules, records)
DATA_PACKAGES = ("peftselect.rules", "peftselect.benchmarks")
_HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
_REQUIRED_METHOD_ATTRIBUTES = ("name", "title", "summary", "family", "structure", "references")
_REQUIRED_STAGE_ATTRIBUTES = ("name", "title", "summary", "references", "places")
_REQUIRED_TASK_ATTRIBUTES = ("name", "title", "family", "heads", "columns", "metrics", "default_models")


class _Manager(pluggy.PluginManager):
    """pluggy's manager, which looks no closer at what in a module bears no mark of :data:`peftselect.hookimpl`: 140
    modules of a score of names each are a good part of the time until an answer."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        """The marker's options of one name of a plugin, if it is a hook."""
        if isinstance(plugin, ModuleType) and not hasattr(vars(plugin).get(name), f"{GROUP}_impl"):
            return None
        return super().parse_hookimpl_opts(plugin, name)


@dataclass
class PluginHost:
    """The registered plugins, and those which could not be loaded.

    ``broken`` maps the name of a plugin to one line that says why it was left out; ``origins`` maps the name of each
    loaded plugin to where it comes from ("built in", or the distribution).
    """

    manager: pluggy.PluginManager
    broken: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    _methods: dict[str, Method] | None = None
    _tasks: dict[str, Task] | None = None
    _stages: dict[str, Stage] | None = None
    _techniques: dict[str, Technique] | None = None

    @classmethod
    def load(cls, *, external: bool = True) -> PluginHost:
        """Load the built-ins and, unless told otherwise, every installed distribution with our entry-point group."""
        host = cls(_Manager(GROUP))
        host.manager.add_hookspecs(hookspecs)
        for name in filter(None, os.environ.get(DISABLE_VARIABLE, "").split(",")):
            host.manager.set_blocked(name.strip())
        for package in MODULE_PACKAGES:
            found = pkgutil.iter_modules(importlib.import_module(package).__path__)
            for name in sorted(item.name for item in found if not item.name.startswith("_")):
                host._register_built_in(name, f"{package}.{name}")
        for package in DATA_PACKAGES:
            host._register_built_in(package.rpartition(".")[2], package)
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name) if external else ():
            host._register_external(point)
        return host

    def _register_built_in(self, name: str, module: str) -> None:
        if self.manager.register(importlib.import_module(module), name=name) is not None:
            self.origins[name] = "built in"

    def _register_external(self, point: EntryPoint) -> None:
        distribution = point.dist.name if point.dist else "unknown distribution"
        if self.manager.is_blocked(point.name):
            return
        if self.manager.has_plugin(point.name):
            self.broken[f"{point.name} ({distribution})"] = "a plugin of this name is already loaded"
            return
        try:
            plugin = point.load()
            self._try_out(plugin)
            self.manager.register(plugin, name=point.name)
            self.origins[point.name] = distribution
        except BaseException as error:  # a third party's code may fail in any way, and must never take the host down
            if isinstance(error, KeyboardInterrupt):
                raise
            self.broken[point.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def _try_out(self, plugin: Any) -> None:
        """Call an external plugin's hooks once on their own, so that what breaks is laid at its door."""
        probe = pluggy.PluginManager(GROUP)
        probe.add_hookspecs(hookspecs)
        probe.register(plugin)
        probe.check_pending()
        methods, tasks = _collect(probe, "register_methods"), _collect(probe, "register_tasks")
        for name in _instantiate(methods, Method, _REQUIRED_METHOD_ATTRIBUTES):
            if name in self._every_method():
                raise PluginError(f"method {name!r} is already registered", "rename it or disable the other plugin")
        for name in _instantiate(tasks, Task, _REQUIRED_TASK_ATTRIBUTES):
            if name in self.tasks():
                raise PluginError(f"task {name!r} is already registered", "rename it or disable the other plugin")
        _instantiate(_collect(probe, "register_stages"), Stage, _REQUIRED_STAGE_ATTRIBUTES)
        self._methods = self._tasks = self._stages = None

    def methods(self) -> dict[str, Method]:
        """Every method that trains, by name, sorted."""
        return {name: item for name, item in self._every_method().items() if item.kind == "runnable"}

    def baselines(self) -> dict[str, Method]:
        """What is run to compare with and trains nothing, by name, sorted."""
        return {name: item for name, item in self._every_method().items() if item.kind == "baseline"}

    def stages(self) -> dict[str, Stage]:
        """What can be done before or after a method, by name, sorted."""
        if self._stages is None:
            classes = _collect(self.manager, "register_stages")
            self._stages = _instantiate(classes, Stage, _REQUIRED_STAGE_ATTRIBUTES)
        return self._stages

    def stage(self, name: str) -> Stage:
        """A stage by name or alias; UnknownNameError otherwise."""
        return _lookup("stage", name, self.stages())

    def techniques(self) -> dict[str, Technique]:
        """What is named in the literature and cannot be run, by name, sorted; it gives way to plugins of its names."""
        if self._techniques is None:
            self._techniques = read_techniques(_collect(self.manager, "register_techniques"))
        plugins: list[Method | Stage] = [*self.stages().values(), *self._every_method().values()]
        taken = {plain(name) for item in plugins for name in (item.name, *item.aliases)}
        return {
            name: item
            for name, item in self._techniques.items()
            if taken.isdisjoint(map(plain, (item.name, *item.aliases)))
        }

    def entries(self) -> dict[str, Entry]:
        """Everything that has a name of its own in the literature, whether it can be run or not."""
        plugins: dict[str, Entry] = {**self.stages(), **self._every_method()}
        return dict(sorted({**self.techniques(), **plugins}.items()))

    def entry(self, name: str) -> Entry:
        """A method, baseline, stage or technique by name or alias; UnknownNameError otherwise."""
        return _lookup("method", name, self.entries())

    def _every_method(self) -> dict[str, Method]:
        if self._methods is None:
            classes = _collect(self.manager, "register_methods")
            self._methods = _instantiate(classes, Method, _REQUIRED_METHOD_ATTRIBUTES)
        return self._methods

    def tasks(self) -> dict[str, Task]:
        """Every task by name, sorted."""
        if self._tasks is None:
            classes = _collect(self.manager, "register_tasks")
            self._tasks = _instantiate(classes, Task, _REQUIRED_TASK_ATTRIBUTES)
        return self._tasks

    def method(self, name: str) -> Method:
        """A method or baseline by name or alias; UnsupportedError says why a name cannot be run."""
        found = self.entry(name)
        if isinstance(found, Technique):
            raise UnsupportedError(f"{found.name} cannot be run: {found.because}", found.hint)
        if isinstance(found, Stage):
            hint = " or ".join(f"run --{place} {found.name}" for place in sorted(found.places, reverse=True))
            raise UnsupportedError(f"{found.name} is no method but a stage beside one", hint)
        return found

    def task(self, name: str) -> Task:
        """A task by name or alias; UnknownNameError otherwise."""
        return _lookup("task", name, self.tasks())

    def overview(self) -> list[dict[str, Any]]:
        """Each loaded plugin: its name, origin, version and the names of what it adds."""
        loaded = []
        for name, origin in self.origins.items():
            plugin = self.manager.get_plugin(name)
            adds = [
                str(getattr(item, "name", item))
                for hook in _HOOKS
                if (register := getattr(plugin, hook, None)) is not None
                for item in register()
            ]
            of = "peftselect" if origin == "built in" else origin
            loaded.append({"name": name, "origin": origin, "version": _version(of), "adds": adds})
        return loaded

    def rule_files(self) -> list[Traversable]:
        """TOML files with rules, the built-in ones first."""
        return _collect(self.manager, "register_rules")

    def record_files(self) -> list[Traversable]:
        """JSON-lines files with run records, the built-in ones first."""
        return _collect(self.manager, "register_records")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _collect(manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """Flatten a hook's answers in order of registration (pluggy calls the last registered first)."""
    return [item for batch in reversed(getattr(manager.hook, hook)()) for item in batch]


def _instantiate(classes: list[Any], kind: type[Registered], required: tuple[str, ...]) -> dict[str, Registered]:
    found: dict[str, Registered] = {}
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, kind)):
            raise PluginError(f"{cls!r} is not a {kind.__name__} class", f"subclass peftselect.{kind.__name__}")
        if missing := [name for name in required if not hasattr(cls, name)]:
            raise PluginError(f"{cls.__name__} lacks {', '.join(missing)}", "see plugins/README.md")
        instance = cls()
        if instance.name in found:
            other = type(found[instance.name]).__module__
            raise PluginError(f"{kind.__name__.lower()} {instance.name!r} is in {other} and {cls.__module__}")
        found[instance.name] = instance
    return dict(sorted(found.items()))


def _lookup(kind: str, name: str, registry: Mapping[str, Named]) -> Named:
    wanted = plain(name)
    for item in registry.values():
        if wanted == plain(item.name):
            return item
    for item in registry.values():
        if wanted in map(plain, item.aliases):
            return item
    raise UnknownNameError(kind, name, sorted(registry))


def plain(name: str) -> str:
    """A name as it is compared: without case, blanks, hyphens, brackets and raised letters (``(IA)³`` is ``ia3``)."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum() or letter == "+")


@cache
def host() -> PluginHost:
    """The process's plugin host."""
    return PluginHost.load()
