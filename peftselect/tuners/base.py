"""What every tuner of ours shares: a configuration, a layer around a module of the base, the model that puts it there.

Written against peft 0.21's ``BaseTuner`` and ``BaseTunerLayer`` (see :mod:`peftselect.tuners.registry`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from peftselect.tuners.registry import catch_up, tuner_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass
class TunerConfig(PeftConfig):  # type: ignore[misc]
    """What every tuner is told. ``saved_by`` names the distribution that a reader of the adapter must install."""

    target_modules: list[str] | str | None = field(default=None, metadata={"help": "names, or a pattern"})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "modules to leave out"})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "modules trained in full, like heads"})
    saved_by: str = field(default="peftselect", metadata={"help": "distribution that has this tuner"})

    #: the peft type, in capitals; begin it with the distribution's name, so that it stays unique
    type_name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = tuner_type(self.type_name)


class TunerLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A module of the base with adapters beside it.

    Subclasses name their attributes in ``adapter_layer_names`` (each becomes a ``ModuleDict`` keyed by the adapter's
    name) and, for bare tensors, in ``parameter_names`` as well (a ``ParameterDict``); make the leaves of one adapter in
    :meth:`make` and use them in :meth:`forward`. Attributes that the layer lacks are the base module's.
    """

    adapter_layer_names: tuple[str, ...] = ()
    other_param_names: tuple[str, ...] = ("configs",)
    #: those of ``adapter_layer_names`` that hold a tensor each, not a module
    parameter_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, base_layer: nn.Module, tuner: Tuner, key: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        #: name of the module in the base model
        self.key = key
        self.configs: dict[str, Any] = {}
        self._tuner = [tuner]  # in a list: the tuner is no part of the layer
        self._disable_adapters = False
        self._active_adapter = list(tuner.active_adapters)
        self.merged_adapters: list[str] = []
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict() if name in self.parameter_names else nn.ModuleDict())

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """The leaves of one adapter by attribute name without the tuner's prefix; overridden by every layer."""
        raise NotImplementedError

    def update_layer(self, adapter: str, config: Any) -> None:
        """Add an adapter's leaves to this layer."""
        self.configs[adapter] = config
        for name, leaf in self.make(adapter, config).items():
            getattr(self, self.tuner.prefix + name)[adapter] = leaf
        self._move_adapter_to_device_of_base_layer(adapter)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def tuner(self) -> Tuner:
        """The model-wide part, which holds state that layers share."""
        return self._tuner[0]

    @property
    def working(self) -> list[str]:
        """Names of the adapters that this layer applies now."""
        return [] if self.disable_adapters else [name for name in self.active_adapters if name in self.configs]

    def leaf(self, name: str, adapter: str) -> Any:
        """The leaf called ``name`` (without the prefix) of an adapter."""
        return getattr(self, self.tuner.prefix + name)[adapter]

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, Any]:
        """As peft does for single layers; of whole blocks the device of the first parameter."""
        device, dtype = super()._get_base_layer_device_and_dtype(base_layer)
        if device is None and (first := next(base_layer.parameters(), None)) is not None:
            device = first.device
        return device, dtype

    def __getattr__(self, name: str) -> Any:
        """Attributes of the base module: model code reads some (a dtype, a number of heads) of what it calls."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base module's output with what the working adapters make of it; overridden by every layer."""
        raise NotImplementedError


class Tuner(BaseTuner):  # type: ignore[misc]
    """Puts layers of :attr:`tuner_layer_cls` around the target modules.

    State that layers share is made in :meth:`make_shared` and kept in the attributes ``shared_modules`` (each a
    ``ModuleDict`` keyed by the adapter's name) and ``shared_parameters`` (each a ``ParameterDict``), named like those
    of layers. It is saved, loaded, frozen and deleted with the adapter.
    """

    target_module_mapping: ClassVar[dict[str, list[str]]] = {}
    shared_modules: ClassVar[tuple[str, ...]] = ()
    shared_parameters: ClassVar[tuple[str, ...]] = ()
    #: whether what is added to a position depends on others, which decoding with a cache would not show it
    mixes_positions: ClassVar[bool] = False

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Decoding reads the whole text at every step where positions mix."""
        super()._prepare_model(peft_config, model)
        if self.mixes_positions and getattr(model, "generation_config", None) is not None:
            model.generation_config.use_cache = False  # type: ignore[union-attr]

    @property
    def unsettled(self) -> bool:
        """Whether the adapter is not yet of the form in which it will be used, so that no evaluation is its best."""
        return False

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """The state of one adapter that layers share, by attribute name without the prefix; made before its layers."""
        return {}

    def shared(self, name: str, adapter: str) -> Any:
        """The shared state called ``name`` (without the prefix) of an adapter."""
        return getattr(self, self.prefix + name)[adapter]

    def make_layer(self, base_layer: nn.Module, key: str, config: Any) -> TunerLayer:
        """An empty layer around ``base_layer``, the module called ``key``."""
        made: TunerLayer = self.tuner_layer_cls(base_layer, self, key)
        return made

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """peft's own, after the shared state (peft's hook for that is not called for a second adapter)."""
        for name in (*self.shared_modules, *self.shared_parameters):
            if name not in self._modules:
                setattr(self, name, nn.ParameterDict() if name in self.shared_parameters else nn.ModuleDict())
        device = next(model.parameters()).device
        for name, leaf in self.make_shared(adapter_name, self.peft_config[adapter_name]).items():
            held = getattr(self, self.prefix + name)
            held[adapter_name] = leaf
            held.to(device)
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.make_layer(target, current_key, peft_config)
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """As peft does; a base module that is put back is put back as it is (whole blocks have no ``weight``)."""
        if isinstance(new_module, TunerLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            setattr(parent, child_name, new_module)

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        super()._mark_only_adapters_as_trainable(model)
        self._train_shared(self.active_adapters)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make adapters the active ones, in the layers and in what they share."""
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        self._train_shared([] if inference_mode else self.active_adapters)

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter, its shared state too."""
        super().delete_adapter(adapter_name)
        for name in (*self.shared_modules, *self.shared_parameters):
            if adapter_name in (held := getattr(self, name)):
                del held[adapter_name]

    def _train_shared(self, adapters: Sequence[str]) -> None:
        for name in (*self.shared_modules, *self.shared_parameters):
            for adapter, leaf in getattr(self, name).items():
                config = self.peft_config.get(adapter)
                leaf.requires_grad_(adapter in adapters and config is not None and not config.inference_mode)


def features(module: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer: plain, quantised (whose weight is packed) or GPT-2's ``Conv1D``."""
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    if hasattr(module, "nf"):
        return int(module.nx), int(module.nf)
    raise TypeError(f"{type(module).__name__} is no linear layer")


def like(adapted: torch.Tensor, leaf: nn.Module | torch.Tensor) -> torch.Tensor:
    """``adapted`` in the type of an adapter's weights (float32 over a base in 16 bits); autocast sees to it itself."""
    weight = leaf if isinstance(leaf, torch.Tensor) else next(leaf.parameters())
    if torch.is_autocast_enabled(adapted.device.type) or adapted.dtype == weight.dtype:
        return adapted
    return adapted.to(weight.dtype)


catch_up()
