"""Rebuild the embedded example: its data, its tokenizer and its pretrained model.

    python benchmarks/build_example.py                 # everything (25 minutes on a busy CPU core)
    python benchmarks/build_example.py --only data     # the dialogues alone (a second)

The model learns to answer questions about generated dialogues and never sees a summary: that is left to fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from example_dialogues import generate, pretraining_rows, splits
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)
from transformers.models.t5.modeling_t5 import T5Attention

EXAMPLE = Path(__file__).parents[1] / "peftselect" / "example"
SEED = 7
MERGED_VOCABULARY = 1280
MAX_LENGTH = 512
PRETRAINING_ROWS = 120_000
HELD_OUT_ROWS = 500


def write_data(folder: Path) -> None:
    """Write the three splits as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits().items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE tokenizer of the generated text: whole words where they are common, bytes for what was never seen."""
    rng = random.Random(SEED)
    dialogues = [generate(rng) for _ in range(4000)]
    texts = [text for d in dialogues for pair in d.questions for text in pair] + [d.text for d in dialogues]
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"[^\w\s▁]"), "isolated"),
        ]
    )
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=MERGED_VOCABULARY,
            special_tokens=["<pad>", "</s>", "<unk>"],
            initial_alphabet=[chr(code) for code in range(32, 127)],
            show_progress=False,
        ),
    )
    inner = _with_bytes(inner)
    inner.normalizer = normalizers.NFC()
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
            decoders.Replace(" \n ", "\n"),
        ]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Append the 256 byte tokens, which the trainer does not make, so that no text is unknown."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for code in range(256):
        vocabulary[f"<0x{code:02X}>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(state))


def build_model(vocabulary: int) -> T5ForConditionalGeneration:
    """A random T5 of about 1.1 M parameters."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, T5Attention):  # what attention reads comes out as it went in: copying is learnt sooner
            module.o.weight.data.copy_(module.v.weight.data.T)
    return model


def encode(rows: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """Model inputs and labels."""
    sources = tokenizer([source for source, _ in rows])["input_ids"]
    targets = tokenizer([target for _, target in rows])["input_ids"]
    return [{"input_ids": source, "labels": target} for source, target in zip(sources, targets, strict=True)]


def pretrain(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, epochs: float, rows: int, folder: Path
) -> float:
    """Train on questions about dialogues; returns the share of held-out questions answered to the letter."""
    pairs = pretraining_rows(rows + HELD_OUT_ROWS, SEED)
    held_out, training = pairs[:HELD_OUT_ROWS], pairs[HELD_OUT_ROWS:]
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        per_device_eval_batch_size=100,
        num_train_epochs=epochs,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        predict_with_generate=True,
        generation_max_length=24,
        eval_strategy="steps",
        eval_steps=1000,
        save_strategy="steps",
        save_steps=500,
        save_total_limit=1,
        logging_steps=100,
        seed=SEED,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )

    def exact_match(prediction: Any) -> dict[str, float]:
        # against the labels that come along: evaluation reads the rows in an order of its own
        given, wanted = (
            tokenizer.batch_decode([[token for token in row if token >= 0] for row in ids], skip_special_tokens=True)
            for ids in (prediction.predictions.tolist(), prediction.label_ids.tolist())
        )
        return {"exact_match": sum(map(str.__eq__, given, wanted)) / len(wanted)}

    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=encode(training, tokenizer),
        eval_dataset=encode(held_out, tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        compute_metrics=exact_match,
    )
    trainer.train()
    return float(trainer.evaluate()["eval_exact_match"])


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, score: float, folder: Path) -> None:
    """Write weights (float16), configuration, tokenizer and the model's card."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = model.num_parameters()
    model.generation_config.max_length = 128
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = CARD.format(parameters=parameters, score=score, rows=PRETRAINING_ROWS, held_out=HELD_OUT_ROWS)
    (folder / "README.md").write_text(card, encoding="utf-8")


CARD = """# The embedded example's model

A T5 of {parameters:,} parameters with its own tokenizer, so that `peftselect run` works offline on a fresh machine. It
is an example for trying out fine-tuning, **no language model of any quality**: it knows some 500 words and six kinds
of generated dialogues, and nothing else.

| | |
|---|---|
| pretrained on | {rows:,} questions about generated dialogues (`question: Who brings the map?` -> `Anna`) |
| score there | {score:.1%} of {held_out} held-out questions answered to the letter |
| never seen | a summary: writing one is what fine-tuning teaches |
| weights | float16 safetensors |
| rebuilt by | `python benchmarks/build_example.py` |
| licence | Apache-2.0, as the rest |
"""


def main() -> None:
    """Build what ``--only`` names, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["data", "model"])
    parser.add_argument("--output", type=Path, default=EXAMPLE, help="folder that gets data/ and model/")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rows", type=int, default=PRETRAINING_ROWS, help="questions to pretrain on")
    chosen = parser.parse_args()
    if chosen.only != "model":
        write_data(chosen.output / "data")
    if chosen.only != "data":
        set_seed(SEED)
        torch.use_deterministic_algorithms(True, warn_only=True)
        tokenizer = build_tokenizer()
        model = build_model(len(tokenizer))
        with tempfile.TemporaryDirectory() as scratch:
            score = pretrain(model, tokenizer, chosen.epochs, chosen.rows, Path(scratch))
        save(model, tokenizer, score, chosen.output / "model")
        print(f"held-out questions answered to the letter: {score:.1%}; {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main()
