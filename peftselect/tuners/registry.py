"""How tuners of our own become known to peft, without peft being imported before its time.

peft finds a method by its type in plain dictionaries, so that a member of any ``(str, Enum)`` is as good a key as one
of peft's closed ``PeftType`` (a maintainer's advice in github.com/huggingface/peft/issues/2634). Adapter attributes
must follow peft's layout: their names begin with the type in lower case and "_", they are keyed by the adapter's name,
and their values are leaves (a composite module would leave the adapter's name inside the keys of the checkpoint).
"""

from __future__ import annotations

import enum
import importlib
import importlib.abc
import importlib.util
import pkgutil
import sys
import warnings
from typing import TYPE_CHECKING, Any

from peftselect.errors import PluginError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: modules that are imported with peft
_modules: list[str] = []
#: those of them which could not be yet, because what they import is itself half imported
_postponed: list[str] = []
#: of peft's internals: what tuners override or call, by class
INTERNALS: dict[str, tuple[str, ...]] = {
    "BaseTuner": (
        "inject_adapter", "set_adapter", "delete_adapter", "get_model_config", "_replace_module", "_prepare_model",
        "_create_and_replace", "_mark_only_adapters_as_trainable", "_enable_adapter_layers",
        "_get_adapter_state_dict", "_remap_adapter_state_dict_for_load", "_remove_adapter_name_from_key",
    ),
    "BaseTunerLayer": (
        "adapter_layer_names", "other_param_names", "set_adapter", "enable_adapters", "delete_adapter",
        "get_base_layer", "_get_base_layer_device_and_dtype", "_move_adapter_to_device_of_base_layer",
    ),
}  # fmt: skip


def register_tuners(module: str) -> None:
    """Have ``module``, which calls :func:`register_tuner`, imported as soon as peft is (now, where it already is).

    A plugin calls this when it is loaded, so that adapters of its tuners load by :func:`peftselect.load`.
    """
    if module in _modules:
        return
    _modules.append(module)
    if "peft" in sys.modules and not _watch.waiting:
        importlib.import_module(module)


def register_tuner(config_class: type[Any], model_class: type[Any]) -> type[Any]:
    """Make a tuner known to peft under ``config_class.type_name`` ("ACME_GATE"); returns ``config_class``.

    The model's ``prefix`` must be the type in lower case with "_" behind it, from which transformers finds adapter
    weights. PluginError where it is not, or where the type is taken; UnsupportedError where this version of peft lacks
    an internal that tuners lean on.
    """
    _check_internals()
    from peft import mapping

    name: str = config_class.type_name
    if name != name.upper() or model_class.prefix != name.lower() + "_":
        raise PluginError(f"tuner {name!r}: the prefix is {model_class.prefix!r}", f"call it {name.lower() + '_'!r}")
    known = mapping.PEFT_TYPE_TO_CONFIG_MAPPING.get(name, config_class)
    if (known.__module__, known.__name__) != (config_class.__module__, config_class.__name__):
        raise PluginError(f"tuner {name!r} is already registered, by {known.__module__}", "call it something else")
    kind = tuner_type(name)
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind] = config_class
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind] = model_class
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind] = model_class.prefix
    catch_up()
    return config_class


def tuner_type(name: str) -> Any:
    """The type as peft wants it: a string that is also a member of an enumeration (transformers reads ``.value``)."""
    if name not in _types:
        members = [(name, name)]
        _types[name] = enum.Enum("TunerType", members, type=str, module=__name__)[name]  # type: ignore[index]
    return _types[name]


_types: dict[str, Any] = {}


def catch_up() -> None:
    """Import what waits. Where peft was first imported by one of these modules, the others follow when it is done."""
    for module in tuple(_postponed):
        if module not in _postponed:  # done meanwhile, by a module that this loop imported
            continue
        _postponed.remove(module)
        try:
            importlib.import_module(module)
        except Exception as error:  # a third party's module may fail in any way
            if "partially initialized" in str(error):
                _postponed.append(module)
            else:
                warnings.warn(f"tuners of {module} are left out: {type(error).__name__}: {error}", stacklevel=2)


def _check_internals() -> None:
    """Fail in one line, not somewhere inside a training step, where peft is not as these tuners know it."""
    import peft
    from peft import mapping
    from peft.tuners import tuners_utils

    lacking = [
        f"{owner}.{name}"
        for owner, names in INTERNALS.items()
        for name in names
        if not hasattr(getattr(tuners_utils, owner, None), name)
    ]
    for name in ("PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_PREFIX_MAPPING"):
        if not isinstance(getattr(mapping, name, None), dict):
            lacking.append(f"mapping.{name}")
    if lacking:
        raise UnsupportedError(
            f"peft {peft.__version__} lacks {', '.join(lacking)}, which our tuners need", "install peft>=0.21,<0.22"
        )


class _Watch(importlib.abc.MetaPathFinder):
    """Sees peft being imported, once, and imports the tuners after it."""

    waiting = False
    looking = False

    def install(self) -> None:
        """Begin to watch; register at once where peft is there already."""
        if "peft" in sys.modules:
            self.arrived()
        elif not self.waiting:
            self.waiting = True
            sys.meta_path.insert(0, self)

    def arrived(self) -> None:
        """Import every module that waits for peft; one that fails must not take peft down with it."""
        self.waiting = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _postponed.extend(_modules)
        catch_up()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """peft's own spec, with a loader that calls us when it has run; nothing for any other module.

        A spec is also asked for by those who only want to know whether peft is installed (transformers does), so that
        the watch goes on until the module has really run.
        """
        if name != "peft" or self.looking or not self.waiting:
            return None
        self.looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Another loader, and then the tuners."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        made: ModuleType | None = self.real.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and then import the tuners; where it fails, the next attempt is watched as well."""
        self.real.exec_module(module)
        module.__loader__ = self.real
        if module.__spec__ is not None:
            module.__spec__.loader = self.real
        _watch.arrived()


_watch = _Watch()


def watch_for_peft() -> None:
    """Have the tuners of this folder, and those named since, registered when peft is imported."""
    package = importlib.import_module(__package__)
    for item in pkgutil.iter_modules(package.__path__):
        name = f"{__package__}.{item.name}"
        if name not in _modules and name != __name__:
            _modules.append(name)
    _watch.install()
