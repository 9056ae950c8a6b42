"""Base class of the methods that train a network beside the blocks of a base which no gradient enters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.method import MemoryTraits, Method, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import ApplyContext
    from peftselect.shape import ModelShape

#: blocks of a stack, by the names that transformers' models give to their lists; nothing inside a block matches
LISTS = "(?:layers?|h|blocks?)"
BLOCKS = rf"(?:[^.\d][^.]*\.)*{LISTS}\.\d+"


#: models whose blocks lie in groups, each of which may be run several times
NESTED = frozenset({"albert"})


class SideMethod(Method):
    """A side network that reads the outputs of blocks; the backward pass ends at the last of them."""

    family: ClassVar[Any] = "additive"
    structure: ClassVar[Structure] = Structure(
        intra_connectivity="dense: small network",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="direct addition",
        workspace="outputs of blocks",
    )
    acts_on: ClassVar[frozenset[str]] = frozenset({"attention", "ffn"})
    quantized_base: ClassVar[Any] = "possible"
    #: the base keeps nothing that could be spared
    gradient_checkpointing: ClassVar[bool] = False
    judged: ClassVar[bool] = False
    #: patterns of blocks, and of the names of lists of them
    block_pattern: ClassVar[str] = BLOCKS
    block_names: ClassVar[str] = LISTS

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """Each block must be a module of its own."""
        return self.shared_blocks(shape)

    @staticmethod
    def shared_blocks(shape: ModelShape) -> str | None:
        """Why blocks cannot be told apart, in half a sentence; None where each is a module of its own."""
        if shape.model_type in NESTED or any(linear.runs != linear.count for linear in shape.linears):
            return f"the blocks of {shape.model_type} share their layers"
        return None

    def blocks(self, shape: ModelShape) -> dict[str, int]:
        """Number of blocks by stack."""
        found = {"encoder": shape.encoder_layers, "decoder": shape.decoder_layers}
        return {stack: layers for stack, layers in found.items() if layers}

    def kept_numbers(self, shape: ModelShape, values: Mapping[str, Any], stack: str) -> float:
        """Numbers that autograd keeps of the side network in a stack, for a position."""
        raise NotImplementedError

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The side network's own, in float32 (under autocast in 16 bits); of the base's body nothing."""
        both = tuple(
            self.kept_numbers(shape, values, stack) if layers else 0.0
            for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers))
        )
        return MemoryTraits(
            kept_bytes_per_token=(4 * both[0], 4 * both[1]),
            kept_under_autocast=(2 * both[0], 2 * both[1]),
            backward_reaches="top",
        )

    def side_arguments(self, shape: ModelShape, context: ApplyContext) -> dict[str, Any]:
        """What every side configuration is given."""
        return {
            "target_modules": BLOCKS,
            "width": shape.hidden_size,
            "blocks": self.blocks(shape),
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }
