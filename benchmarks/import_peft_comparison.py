"""Convert runs of the PEFT project's method comparison (a CSV, one row a run) into run records.

    python -m peftselect.benchmarks.import_peft_comparison peft_metamathqa.csv [FOLDER]

The runs fine-tune Llama-3.2-3B on MetaMathQA (bf16, sequences of at most 768 tokens) and test on GSM8K; accuracy is a
fraction, peak memory is what the CUDA caching allocator reserved. `peftselect results import` reads the same file, and
the JSON which the project itself writes, in the same way (:mod:`peftselect.importing.peft_project`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from peftselect.importing.peft_project import read_summary
from peftselect.results import write_json_lines

if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "results" / "peft_metamathqa"
    target.mkdir(parents=True, exist_ok=True)
    write_json_lines(read_summary(Path(sys.argv[1])), target / "runs.jsonl")
