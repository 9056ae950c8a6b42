"""A trained adapter in the words of the ecosystem's servers; trainers are in :mod:`peftselect.serving.trainers`.

What a tool cannot take is refused with the reason; nothing is converted here that a tool converts itself.
"""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnsupportedError
from peftselect.serving.saved import read_record

if TYPE_CHECKING:
    from peftselect.serving.saved import Saved

#: ranks that vLLM's kernels are compiled for
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Export:
    """What to do: files by name (written beside one another) and the commands to paste, with a sentence about them."""

    about: str
    commands: tuple[str, ...]
    files: dict[str, str]


@dataclass(frozen=True)
class Source:
    """The adapter with its peft configuration and, where a run of ours wrote it, its record."""

    saved: Saved
    config: dict[str, Any]
    folder: str

    @property
    def name(self) -> str:
        """What it is called in the tool."""
        return self.saved.name

    @property
    def base(self) -> str:
        """What its base model is loaded from."""
        return self.saved.model

    @property
    def recipe(self) -> dict[str, Any]:
        """How it was trained; InputError where no run of ours wrote it."""
        return dict(read_record(self.saved.folder)["candidate"].get("recipe", {}))

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max([int(self.config["r"]), *map(int, (self.config.get("rank_pattern") or {}).values())])


WRITERS: dict[str, Callable[[Source], Export]] = {}


def writes(name: str) -> Callable[[Callable[[Source], Export]], Callable[[Source], Export]]:
    """Register a function as the way to a format."""

    def register(write: Callable[[Source], Export]) -> Callable[[Source], Export]:
        WRITERS[name] = write
        return write

    return register


def formats() -> dict[str, str]:
    """Names of the formats, each with the first line of what is known of it."""
    importlib.import_module("peftselect.serving.trainers")  # they register themselves
    return {name: str(write.__doc__).split("\n")[0] for name, write in WRITERS.items()}


def export(saved: Saved, to: str, output: str | Path | None = None) -> Export:
    """``saved`` for the tool ``to``; files are written into ``output`` where there are any.

    UnsupportedError where the tool cannot take the adapter, InputError where the folder cannot be written.
    """
    formats()
    if saved.whole_model and to != "transformers-serve":
        raise UnsupportedError(f"{saved.name} is a whole model, not an adapter", "give its folder to the tool as it is")
    file = saved.folder / "adapter_config.json"
    config = {} if saved.whole_model else json.loads(file.read_text(encoding="utf-8"))
    made = WRITERS[to](Source(saved, config, str(saved.folder.absolute())))
    if made.files:
        target = Path(output or ".")
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, text in made.files.items():
                (target / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{target} cannot be written ({error.strerror})", "give another --output") from error
    return made


def _plain_lora(source: Source, tool: str) -> None:
    """Servers take LoRA on linear layers, as it was published, and nothing beside it."""
    config = source.config
    why = {
        "it is no LoRA but " + str(config.get("peft_type")): config.get("peft_type") != "LORA",
        "it is not for text generation": config.get("task_type") != "CAUSAL_LM",
        "it is DoRA": bool(config.get("use_dora")),
        "it trains biases": config.get("bias", "none") != "none",
        "it trains whole modules beside the factors": bool(config.get("modules_to_save")),
    }
    for reason, holds in why.items():
        if holds:
            mergeable = source.saved.mergeable and source.saved.quantization is None
            hint = (
                f"peftselect merge {source.folder} --output MERGED, and serve that"
                if mergeable
                else "predict with peft"
            )
            raise UnsupportedError(f"{tool} cannot serve {source.name}: {reason}", hint)


@writes("vllm")
def _vllm(source: Source) -> Export:
    """vLLM's OpenAI-compatible server, the adapter beside its base: requests choose it by name."""
    _plain_lora(source, "vLLM")
    if source.rank > VLLM_RANKS[-1]:
        raise UnsupportedError(f"vLLM serves ranks up to {VLLM_RANKS[-1]}, this is {source.rank}", "merge it")
    rank = next(rank for rank in VLLM_RANKS if rank >= source.rank)
    adapter = shlex.quote(f"{source.name}={source.folder}")
    serve = f"vllm serve {shlex.quote(source.base)} --enable-lora --max-lora-rank {rank} --lora-modules {adapter}"
    return Export("Several adapters: repeat NAME=DIR. The base answers under its own name.", (serve, _ask(source)), {})


@writes("tgi")
def _tgi(source: Source) -> Export:
    """Text Generation Inference, the adapter beside its base: requests choose it by adapter_id."""
    _plain_lora(source, "TGI")
    adapter = shlex.quote(f"{source.name}={source.folder}")
    serve = f"text-generation-launcher --model-id {shlex.quote(source.base)} --lora-adapters {adapter}"
    body = json.dumps({"inputs": "PROMPT", "parameters": {"adapter_id": source.name}})
    ask = f"curl http://localhost:3000/generate -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return Export("Several adapters: NAME=DIR,NAME=DIR.", (serve, ask), {})


@writes("transformers-serve")
def _transformers_serve(source: Source) -> Export:
    """transformers' own server; it takes whole models, so an adapter is merged first."""
    if source.saved.whole_model:
        return Export("The model as it is.", (f"transformers serve {shlex.quote(source.folder)}",), {})
    if source.config.get("task_type") != "CAUSAL_LM":
        raise UnsupportedError("transformers serve is for causal language models", "peftselect predict answers")
    if not source.saved.mergeable or source.saved.quantization is not None:
        raise UnsupportedError(
            f"{source.saved.method} cannot be merged, which this needs", "peftselect predict answers"
        )
    merged = shlex.quote(source.folder + "-merged")
    merge = f"peftselect merge {shlex.quote(source.folder)} --output {merged}"
    return Export("Needs pip install 'transformers[serving]'.", (merge, f"transformers serve {merged}"), {})


@writes("gguf")
def _gguf(source: Source) -> Export:
    """A GGUF adapter for llama.cpp, by llama.cpp's own converter (convert_lora_to_gguf.py in its repository)."""
    _plain_lora(source, "llama.cpp")
    out = shlex.quote(f"{source.name}.gguf")
    convert = (
        f"python convert_lora_to_gguf.py {shlex.quote(source.folder)} --base {shlex.quote(source.base)} --outfile {out}"
    )
    return Export(
        "BASE.gguf is the base by convert_hf_to_gguf.py.", (convert, f"llama-cli -m BASE.gguf --lora {out}"), {}
    )


def _ask(source: Source) -> str:
    body = json.dumps({"model": source.name, "prompt": "PROMPT", "max_tokens": source.saved.max_target_length or 64})
    return f"curl http://localhost:8000/v1/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}"
