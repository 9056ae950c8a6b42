"""MEFT: frozen blocks made reversible by adapters, so that activations are computed again from outputs, not kept.

Liao et al. 2023 (arXiv 2306.00477), its first form: two streams, ``y1 = l x1 + F(x2)`` and ``y2 = b x2 + G(y1)``, where
F is the block with an adapter beside it and G an adapter; then both change places. With a small ``l`` and adapters that
are zero, the second stream is the base's. Backwards ``x2 = (y2 - G(y1)) / b`` and ``x1 = (y1 - F(x2)) / l``.

Streams are carried in 64 bits: divided by ``l`` at every other block, rounding in 32 would grow by a factor of ten each
time. One pair of them is all that a whole stack keeps.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states
from transformers.activations import ACT2FN

from peftselect.tuners.base import like
from peftselect.tuners.registry import register_tuner
from peftselect.tuners.side import SideConfig, SideLayer, SideModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STREAM = torch.float64
#: arguments by which a block fills a key/value cache, which computing it again must not do
_CACHE = {"past_key_values": None, "past_key_value": None, "layer_past": None, "use_cache": False}


@dataclass
class ReversibleConfig(SideConfig):
    """``decay`` and ``carry`` are the paper's lambda and beta."""

    type_name: ClassVar[str] = "PSEL_REVERSIBLE"

    bottleneck: int = field(default=8, metadata={"help": "inner width of an adapter"})
    activation: str = field(default="gelu", metadata={"help": "its activation"})
    decay: float = field(default=0.1, metadata={"help": "factor on the first stream"})
    carry: float = field(default=1.0, metadata={"help": "factor on the second stream"})


@dataclass
class Journey:
    """What the blocks of one forward pass share: the streams, where the backward pass has come to."""

    streams: torch.Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """Random generators and mixed precision as they were when something was computed."""

    device: str
    host: torch.Tensor
    devices: list[int]
    states: list[torch.Tensor]
    mixed: tuple[bool, torch.dtype]

    @classmethod
    def now(cls, streams: torch.Tensor) -> Moment:
        """This one."""
        kind = streams.device.type
        drawing = getattr(torch.get_device_module(kind), "_initialized", False)  # as torch's checkpointing asks
        devices, states = get_device_states(streams) if drawing else ([], [])
        mixed = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        return cls(kind, torch.get_rng_state(), devices, states, mixed)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Be there again, and put everything back."""
        enabled, dtype = self.mixed
        with torch.random.fork_rng(devices=self.devices, device_type=self.device if self.devices else "cuda"):
            torch.set_rng_state(self.host)
            if self.devices:
                set_device_states(self.devices, self.states, device_type=self.device)
            with torch.autocast(self.device, dtype=dtype, enabled=enabled):
                yield


class ReversibleLayer(SideLayer):
    """A block of the base with an adapter beside it (F), and another one for the other stream (G)."""

    adapter_layer_names = tuple(
        f"psel_reversible_{name}" for name in ("inner_down", "inner_up", "outer_down", "outer_up")
    )

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """Both adapters, which give nothing at first."""
        made: dict[str, nn.Module] = {}
        for kind in ("inner", "outer"):
            made[f"{kind}_down"] = nn.Linear(config.width, config.bottleneck)
            made[f"{kind}_up"] = up = nn.Linear(config.bottleneck, config.width)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        return made

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Both streams side by side, (batch, positions, 2 width); from the last block their mean."""
        if not self.working:
            return self.base_layer(*args, **kwargs)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        states = given.pop(self.names[0])
        config, flows = self.configs[self.working[0]], self.tuner.flows
        place = (self.working[0], self.stack(config))
        if self.index == 0:
            self.tuner.widths[place] = states.dtype
            states = torch.cat([states, states], dim=-1).to(STREAM)
            flows[place] = Journey()
        trained = self.trained("inner") + self.trained("outer")
        if torch.is_grad_enabled() and any(item.requires_grad for item in trained):
            given |= {name: value for name, value in _CACHE.items() if name in given}
            states = Reversed.apply(states, self, given, flows[place], *trained)  # type: ignore[no-untyped-call]
            if self.is_last(config):
                flows[place].streams = states.detach()
        else:
            states = self.both(states, given)[0]
        if self.is_last(config):
            del flows[place]
            first, second = states.chunk(2, dim=-1)
            states = ((first + second) / 2).to(self.tuner.widths.pop(place))
        return states if self.tuner.plain(self) else (states,)

    def both(self, streams: torch.Tensor, given: dict[str, Any]) -> tuple[torch.Tensor, tuple[Moment, Moment]]:
        """The streams after this block, changed over; and when F and G were computed."""
        config = self.configs[self.working[0]]
        first, second = streams.chunk(2, dim=-1)
        before = Moment.now(streams)
        after_first = config.decay * first + self.through_block(second, given)
        between = Moment.now(streams)
        after_second = config.carry * second + self.through_adapter(after_first)
        return torch.cat([after_second, after_first], dim=-1), (before, between)

    def through_block(self, stream: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
        """F: the block, and the adapters beside it."""
        width = next((item.dtype for item in self.base_layer.parameters() if item.is_floating_point()), torch.float32)
        output = self.base_layer(stream.to(width), **given)
        self.tuner.note(self, isinstance(output, torch.Tensor))
        states = output if isinstance(output, torch.Tensor) else output[0]
        return states.to(STREAM) + self._adapt("inner", stream)

    def through_adapter(self, stream: torch.Tensor) -> torch.Tensor:
        """G: the other adapters."""
        return self._adapt("outer", stream)

    def trained(self, kind: str) -> list[nn.Parameter]:
        """Parameters of the working adapters in F (inner) or G (outer)."""
        leaves = (self.leaf(f"{kind}_{part}", adapter) for adapter in self.working for part in ("down", "up"))
        return [parameter for leaf in leaves for parameter in leaf.parameters()]

    def _adapt(self, kind: str, stream: torch.Tensor) -> torch.Tensor:
        added = torch.zeros((), dtype=STREAM, device=stream.device)
        for adapter in self.working:
            down, up = self.leaf(f"{kind}_down", adapter), self.leaf(f"{kind}_up", adapter)
            states = like(stream.float(), down)
            added = added + up(ACT2FN[self.configs[adapter].activation](down(states))).to(STREAM)
        return added


class Reversed(torch.autograd.Function):
    """A block over two streams that keeps nothing: the backward pass finds its output in the journey."""

    @staticmethod
    def forward(
        ctx: Any, streams: torch.Tensor, layer: ReversibleLayer, given: dict[str, Any], journey: Journey, *_: Any
    ) -> torch.Tensor:
        """The streams after the block."""
        after, ctx.moments = layer.both(streams, given)
        ctx.layer, ctx.given, ctx.journey = layer, given, journey
        return after

    @staticmethod
    def backward(ctx: Any, gradients: torch.Tensor) -> Any:
        """Compute G and F again, take them off, and hand the input on to the block before."""
        layer, (before, between) = ctx.layer, ctx.moments
        config = layer.configs[layer.working[0]]
        (second, first), (of_second, of_first) = ctx.journey.streams.chunk(2, dim=-1), gradients.chunk(2, dim=-1)
        added, through, of_outer = _gradients(between, first, layer.through_adapter, of_second, layer.trained("outer"))
        of_first = of_first + through
        second = (second - added) / config.carry
        added, through, of_inner = _gradients(
            before, second, lambda stream: layer.through_block(stream, ctx.given), of_first, layer.trained("inner")
        )
        first = (first - added) / config.decay
        ctx.journey.streams = torch.cat([first, second], dim=-1)
        of_input = torch.cat([config.decay * of_first, config.carry * of_second + through], dim=-1)
        return of_input, None, None, None, *of_inner, *of_outer


def _gradients(
    moment: Moment, stream: torch.Tensor, function: Any, gradient: torch.Tensor, parameters: list[nn.Parameter]
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """What ``function`` gives again for ``stream``, and the gradients of the stream and of the parameters."""
    stream = stream.detach().requires_grad_()
    with torch.enable_grad(), moment.again():
        output = function(stream)
    of_stream, *of_parameters = torch.autograd.grad(output, [stream, *parameters], gradient)
    return output.detach(), of_stream, tuple(of_parameters)


class ReversibleModel(SideModel):
    """The tuner."""

    prefix = "psel_reversible_"
    tuner_layer_cls = ReversibleLayer
    mixes_positions = False
    flows: dict[tuple[str, str], Any]

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        #: the width of the states that came into a stack
        self.widths: dict[tuple[str, str], torch.dtype] = getattr(self, "widths", {})
        self._plain: dict[str, bool] = getattr(self, "_plain", {})

    def note(self, layer: ReversibleLayer, plain: bool) -> None:
        """Remember whether a block gives its states alone, or in a tuple."""
        self._plain[layer.key] = plain

    def plain(self, layer: ReversibleLayer) -> bool:
        """What :meth:`note` was told."""
        return self._plain[layer.key]


register_tuner(ReversibleConfig, ReversibleModel)
