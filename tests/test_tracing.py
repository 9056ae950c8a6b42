"""Traced training steps: exact counts, honest kinds, and everything put back afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.conftest import ROOT

#: a trace registers a device for good, so it runs in a process of its own
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import torch, transformers
from torch.nn import functional
from peftselect.memory.allocator import replay, smallest_capacity
from peftselect.memory.tracing.step import TracedModel, trace_steps
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape
from tests.tiny import config

made = config("llama")
made.use_cache = False
shape, lora = read_shape(made.to_dict()), host().method("lora")
values = resolve_values(lora, shape)

def load(device):
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)

def prepare(model):
    model = lora.apply(model, values, ApplyContext(shape, "trace", 10))
    trained = [p for p in model.parameters() if p.requires_grad]
    return TracedModel(model, torch.optim.AdamW(trained, foreach=False), vocabulary=shape.vocab_size)

def batches(device, lengths=(8, 64)):
    return [dict(input_ids=torch.zeros((2, n), dtype=torch.long, device=device),
                 attention_mask=torch.ones((2, n), dtype=torch.long, device=device),
                 labels=torch.zeros((2, n), dtype=torch.long, device=device)) for n in lengths]

before = functional.scaled_dot_product_attention, torch.nn.Module._apply, torch.tensor
trace = trace_steps(load, prepare, batches)
assert (functional.scaled_dot_product_attention, torch.nn.Module._apply, torch.tensor) == before
assert trace.trainable_parameters == lora.trainable_parameters(shape, values)
assert trace.total_parameters == shape.total_parameters + trace.trainable_parameters
parts = trace.breakdown
assert sum(parts.values()) == trace.peak_bytes, (parts, trace.peak_bytes)
# the base in 2 bytes (and a rotary table), the adapter in 4, its two states in 8 (and a step count each)
assert 2 * shape.total_parameters <= parts["weights"] <= 2 * shape.total_parameters + 4096
assert parts["adapter"] == 4 * trace.trainable_parameters
assert 8 * trace.trainable_parameters <= parts["optimizer"] <= 8 * trace.trainable_parameters + 4096
longer = trace_steps(load, prepare, lambda device: batches(device, (8, 128)))
assert longer.breakdown["activations"] > 1.8 * parts["activations"]
done = replay(trace.log.events)
assert trace.peak_bytes <= done.peak_allocated <= done.peak_reserved
assert done.peak_allocated <= smallest_capacity(trace.log.events) <= done.peak_reserved
print("ok")
"""


def test_a_traced_step_accounts_for_every_byte() -> None:
    code = textwrap.dedent(PROGRAM).replace("{root!r}", repr(str(ROOT)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip().endswith("ok"), done.stderr[-3000:]


#: sums of gradients that meet: real ones in an ordinary backward pass, and those of a trace
SUMS = """
import sys
sys.path.insert(0, {root!r})
import torch
from torch.autograd.profiler import profile
from peftselect.memory.tracing.log import AllocationLog, StorageTracker
from peftselect.memory.tracing.policies import PolicyTracker
from peftselect.memory.tracing.step import fake_device

def losses(device):
    weight, rows = torch.zeros(4, 4, device=device, requires_grad=True), torch.zeros(3, 4, device=device)
    yield (rows @ weight @ weight).sum()  # a tied matrix
    weight.grad = None
    once = rows @ weight
    yield (once + (once @ weight).tanh()).sum()  # a residual stream: the first gradient is held elsewhere
    weight.grad = None
    twice = rows @ weight
    yield ((twice * 2).tanh() + (twice * 3).tanh() + (twice * 4).tanh()).sum()
    weight.grad = None
    part = rows @ weight
    yield part[:, :2].sum() + part.exp().sum()

plain = StorageTracker.__torch_dispatch__
def watch(self, func, *rest):
    if func in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor):
        seen.append(func.name().removesuffix(".Tensor"))
    return plain(self, func, *rest)
StorageTracker.__torch_dispatch__ = watch

traced, real, seen = [], [], []
with fake_device() as device, PolicyTracker(AllocationLog(), device):
    for loss in losses(device):
        seen.clear()
        loss.backward()
        traced.append(sorted(seen))
for loss in losses("cpu"):
    with profile() as done:
        loss.backward()
    real.append(sorted(event.name for event in done.function_events if event.name in ("aten::add", "aten::add_")))
assert ["aten::add", "aten::add_"] in real, real
assert traced == real, (traced, real)
print("ok")
"""


def test_gradients_meet_in_place_where_autograd_would() -> None:
    code = textwrap.dedent(SUMS).replace("{root!r}", repr(str(ROOT)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip().endswith("ok"), done.stderr[-3000:]
