"""A small speech encoder, trained on some speakers, adapted by several methods to others and to another task.

    python benchmarks/speech_adaptation.py FSDD_FOLDER

FSDD is the Free Spoken Digit Dataset (six speakers, ten digits): ``train.jsonl``, ``validation.jsonl``, ``test.jsonl``
with ``path``, ``label`` and ``speaker``. No pretrained encoder is fetched: a wav2vec 2.0 of four narrow layers learns
the digits of four speakers from nothing first. Each method then starts from it: at the digits of the two other
speakers, and at telling all six speakers apart. Chance is 0.10 and 0.17. Writes ``results/speech_adaptation.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import peftselect

METHODS = (
    "head_only", "weighted_sum", "bitfit", "lora", "adapter_pfeiffer", "adapter_houlsby", "prefix_tuning",
    "full_finetuning",
)  # fmt: skip
#: speakers whose digits the encoder never heard
NEW = ("theo", "yweweler")
ENCODER: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256,
    "conv_dim": [64] * 5, "conv_kernel": [10, 8, 4, 4, 4], "conv_stride": [5, 4, 2, 2, 2],
    "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 8, "classifier_proj_size": 64, "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}  # fmt: skip
FIRST = {"num_train_epochs": 40, "learning_rate": 1e-3, "batch_size": 16}
THEN = {"num_train_epochs": 20, "batch_size": 16}


def new_encoder(folder: Path) -> Path:
    """A random wav2vec 2.0 with its feature extractor."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(vocab_size=32, pad_token_id=0, **ENCODER)
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder


def rows(data: Path, part: str, speakers: Iterable[str] = ()) -> list[dict[str, str]]:
    """Rows of a part, of some speakers alone where they are named, with absolute paths."""
    found = [json.loads(line) for line in (data / f"{part}.jsonl").read_text().splitlines()]
    chosen = set(speakers) or {row["speaker"] for row in found}
    return [{**row, "path": str((data / row["path"]).absolute())} for row in found if row["speaker"] in chosen]


def run(task: str, model: Path, data: Path, method: str, work: Path, settings: dict[str, Any], **of: Any) -> Any:
    """One run on the three parts; what it is given beyond the files is the method and its settings."""
    work.mkdir(parents=True)
    files = {}
    for part in ("train", "validation", "test"):
        files[part] = work / f"{part}.jsonl"
        files[part].write_text("".join(json.dumps(row) + "\n" for row in rows(data, part, **of)))
    return peftselect.run(
        task, str(model), train=str(files["train"]), evaluation=str(files["validation"]), test=str(files["test"]),
        method=method, output=work / "out", max_length=1, settings=settings, device="cpu",
    )  # fmt: skip


def main(data: Path) -> dict[str, Any]:
    """Train the encoder, adapt it by every method, and say what came of it."""
    table: dict[str, Any] = {}
    speakers = {row["speaker"] for row in rows(data, "train")}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        known = sorted(speakers - set(NEW))
        trained = run("keyword_spotting", new_encoder(work / "new"), data, "full_finetuning", work / "first", FIRST,
                      speakers=known)  # fmt: skip
        table["encoder"] = _line(trained)
        print("encoder", table["encoder"], flush=True)
        questions = {
            "digits of two new speakers": ("keyword_spotting", NEW),
            "six speakers": ("speaker_recognition", ()),
        }
        for title, (task, of) in questions.items():
            for method in METHODS:
                done = run(task, trained.output, data, method, work / f"{task}-{method}", THEN, speakers=of)
                table[f"{title}, {method}"] = _line(done)
                print(title, method, table[f"{title}, {method}"], flush=True)
    return table


def _line(result: Any) -> dict[str, Any]:
    record = result.record
    return {
        "accuracy": round(record.scores["accuracy"].value, 3),
        "accuracy_before": round(record.baseline["accuracy"].value, 3),
        "trainable_parameters": record.measured["trainable_parameters"],
        "train_seconds": round(record.measured["train_seconds"], 1),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    outcome = main(Path(sys.argv[1]))
    (Path(__file__).parent / "results" / "speech_adaptation.json").write_text(json.dumps(outcome, indent=1) + "\n")
