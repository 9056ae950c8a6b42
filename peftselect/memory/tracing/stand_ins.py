"""Small parts of torch and peft that cannot run on a fake device, put in place for the length of a trace.

Each stands for what the real part would do to memory: a literal that is copied to the card, a parameter whose data
moves from the host to the card, a clustering whose groups depend on values, matrices written piece by piece.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

#: a Python-only device that stands for the GPU, so that what stays on the host is told apart
FAKE_DEVICE = "fakegpu"


class FakeBackend:
    """What torch asks of the module of a device: one device, a generator without a state, nothing to wait for."""

    def is_initialized(self) -> bool:
        """Ready at once."""
        return True

    def is_available(self) -> bool:
        """Always there."""
        return True

    def current_device(self) -> int:
        """The only device."""
        return 0

    def device_count(self) -> int:
        """One."""
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Nothing is drawn."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        """A state of no size: there is no generator."""
        return torch.empty(0, dtype=torch.uint8, device="cpu")

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """There is no generator."""

    def synchronize(self, device: Any = None) -> None:
        """Nothing runs."""

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """The widths of automatic mixed precision on a card."""
        return [torch.float16, torch.bfloat16, torch.float32]


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Everything of this module, in place inside the block."""
    parts = (
        _modules_move_plainly,
        _literals_move,
        _single_draws_are_known,
        _generators_are_the_hosts,
        _data_moves,
        _lists_index,
        _sparse_is_dense,
        _clusters_are_equal,
        _rounds_improve,
        _blocks_are_one,
    )
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(part())
        yield


@contextlib.contextmanager
def replaced(owner: Any, **parts: Any) -> Iterator[None]:
    """Attributes of ``owner`` replaced inside the block."""
    before = {name: vars(owner)[name] for name in parts if name in vars(owner)}
    for name, part in parts.items():
        setattr(owner, name, part)
    try:
        yield
    finally:
        for name in parts:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


@contextlib.contextmanager
def _modules_move_plainly() -> Iterator[None]:
    """``Module._apply`` without swapping tensors in place, which fake tensors with weak references refuse."""

    def apply(self: Any, function: Callable[[Any], Any], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(function)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                with torch.no_grad():
                    moved = function(parameter)
                if moved is not parameter:
                    self._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
        return self

    with replaced(torch.nn.Module, _apply=apply):
        yield


@contextlib.contextmanager
def _literals_move() -> Iterator[None]:
    """``torch.tensor([...], device=fake)`` by way of the host: the fake device has no memory to write literals to."""

    def by_way_of_host(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def make(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> torch.Tensor:
            if device is None or torch.device(device).type != FAKE_DEVICE:
                made = original(data, device=device, **options)
            elif isinstance(data, torch.Tensor):
                made = original(data, **options).to(device)
            else:
                made = original(data, device="cpu", **options).to(device)
            return made.requires_grad_() if requires_grad else made

        return make

    with replaced(torch, tensor=by_way_of_host(torch.tensor), as_tensor=by_way_of_host(torch.as_tensor)):
        yield


@contextlib.contextmanager
def _single_draws_are_known() -> Iterator[None]:
    """One random number is 0.5, so that code which leaves a module out by chance (LoHa, LoKr) keeps it."""
    original = torch.rand

    def rand(*size: Any, **options: Any) -> torch.Tensor:
        return torch.tensor([0.5]) if size == (1,) and not options else original(*size, **options)

    with replaced(torch, rand=rand):
        yield


@contextlib.contextmanager
def _generators_are_the_hosts() -> Iterator[None]:
    """The fake device has no generators; fake tensors are drawn by any."""

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Any:
            host = "cpu" if torch.device(device).type == FAKE_DEVICE else device
            return super().__new__(cls, host)  # type: ignore[call-arg]

    with replaced(torch, Generator=Generator):
        yield


@contextlib.contextmanager
def _data_moves() -> Iterator[None]:
    """``parameter.data = tensor`` across devices: torch allows it between real ones, not between fake ones.

    The modules that own the parameter get a new one in its place.
    """
    plain = torch.Tensor.data

    def get(self: Any) -> Any:
        return plain.__get__(self)  # type: ignore[attr-defined]

    def put(self: Any, new: Any) -> None:
        if not isinstance(new, FakeTensor) or new.device.type == self.device.type:
            plain.__set__(self, new)  # type: ignore[attr-defined]
            return
        moved = torch.nn.Parameter(new.detach(), self.requires_grad)
        for owner in gc.get_referrers(self):
            if isinstance(owner, dict):
                for name in [name for name, held in owner.items() if held is self]:
                    owner[name] = moved

    with replaced(FakeTensor, data=property(get, put)):
        yield


@contextlib.contextmanager
def _lists_index() -> Iterator[None]:
    """``tensor[[3, 5]]``: the list becomes a tensor on the card, which torch cannot write there itself."""
    plain = torch.Tensor.__getitem__

    def get(self: Any, index: Any) -> Any:
        if isinstance(index, list) and self.device.type == FAKE_DEVICE:
            index = torch.tensor(index, device=self.device)
        return plain(self, index)

    with replaced(FakeTensor, __getitem__=get):
        yield


@contextlib.contextmanager
def _sparse_is_dense() -> Iterator[None]:
    """A sparse matrix as the dense one that PEFT's tuners (FRoD, SHiRA) turn it into: there are no sparse fake kernels.

    What autograd keeps of it, the positions and the dense product's operand, is the same.
    """
    originals = torch.sparse_coo_tensor, torch.sparse.mm

    def make(indices: Any, values: Any, size: Any = None, **options: Any) -> Any:
        if values.device.type != FAKE_DEVICE:
            return originals[0](indices, values, size, **options)
        dense = torch.zeros(size, dtype=values.dtype, device=values.device)
        return dense.index_put(tuple(indices.long().unbind(0)), values, accumulate=True)

    def product(left: Any, right: Any, *rest: Any) -> Any:
        return left @ right if left.layout is torch.strided else originals[1](left, right, *rest)

    dense = {"coalesce": lambda self: self, "_nnz": lambda self: self.numel()}
    with (
        replaced(torch, sparse_coo_tensor=make),
        replaced(torch.sparse, mm=product),
        replaced(FakeTensor, **dense),
    ):
        yield


@contextlib.contextmanager
def _clusters_are_equal() -> Iterator[None]:
    """AdaMSS groups the rows of a matrix by k-means: groups of one size stand for those."""
    from peft.tuners.adamss import layer

    def cluster(rows: torch.Tensor, groups: int, iterations: int) -> tuple[tuple[int, int], int]:
        return (rows.shape[0], min(groups, rows.shape[0])), min(groups, rows.shape[0])

    def members(found: tuple[int, int]) -> list[torch.Tensor]:
        rows, groups = found
        sizes = [rows // groups + (index < rows % groups) for index in range(groups)]
        return [torch.zeros(size, dtype=torch.long) for size in sizes]

    with replaced(layer, clustering_Z=cluster, seg_locations=members):
        yield


@contextlib.contextmanager
def _rounds_improve() -> Iterator[None]:
    """LoftQ keeps the best of its rounds: the last one stands for it. LQ-LoRA's errors fall with the bits alone."""
    from peftselect.tuners import bit_budget, packed_low_rank

    def losses(linear: Any, matrix: torch.Tensor, rank: int) -> list[float]:
        return [matrix.numel() * 4.0**-bits * block**0.1 for bits, block in bit_budget.CHOICES]

    with (
        replaced(packed_low_rank, is_less=lambda error, least: True),
        replaced(bit_budget, losses=losses),
    ):
        yield


@contextlib.contextmanager
def _blocks_are_one() -> Iterator[None]:
    """BOFT writes a permutation row by row and a block-diagonal matrix block by block, minutes of it.

    Matrices of those sizes stand for both. Its own kernel, which peft compiles where it can, knows no fake tensors: the
    way without it is traced.
    """
    from peft.tuners.boft import layer

    original = torch.block_diag

    def permutation(self: Any, indices: torch.Tensor) -> torch.Tensor:
        return torch.eye(len(indices))

    def block_diagonal(*blocks: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor | None = blocks[0]._base
        if whole is None or whole.device.type != FAKE_DEVICE:
            joined: torch.Tensor = original(*blocks)
            return joined
        width = sum(block.shape[-1] for block in blocks)
        return whole.reshape(-1, 1)[:width].expand(width, width).contiguous()

    with (
        replaced(layer.BOFTLayer, perm2mat=permutation),
        replaced(layer, get_fbd_cuda=lambda: None),
        replaced(torch, block_diag=block_diagonal),
    ):
        yield
