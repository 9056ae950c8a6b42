"""How long a newcomer waits for advice: `peftselect recommend` against `python -c "import peft"`, cold processes.

    python benchmarks/cold_start.py [--runs 5] [--json]

Runs both commands in turn, once each to warm the disk cache and then ``--runs`` times, and compares the medians. Exit
code 1 when the ratio is above the target.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

TARGET_RATIO = 0.08
RECOMMEND = [sys.executable, "-m", "peftselect", "recommend", "--task", "summarization", "--vram", "4"]
IMPORT_PEFT = [sys.executable, "-c", "import peft"]


def seconds(command: list[str]) -> float:
    """Wall time of a command run to its end outside the clone; CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=tempfile.gettempdir(), env={**os.environ})
    return time.perf_counter() - started


def compare(runs: int) -> dict[str, object]:
    """Times of both commands, alternated, after one warm-up each."""
    seconds(RECOMMEND), seconds(IMPORT_PEFT)
    pairs = [(seconds(RECOMMEND), seconds(IMPORT_PEFT)) for _ in range(runs)]
    advice, imports = (median(times) for times in zip(*pairs, strict=True))
    return {
        "recommend_seconds": [round(pair[0], 3) for pair in pairs],
        "import_peft_seconds": [round(pair[1], 3) for pair in pairs],
        "recommend_median_seconds": round(advice, 3),
        "import_peft_median_seconds": round(imports, 3),
        "ratio": round(advice / imports, 4),
        "target_ratio": TARGET_RATIO,
    }


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = compare(options.runs)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        advice, imports = found["recommend_median_seconds"], found["import_peft_median_seconds"]
        print(f"recommend {advice} s, import peft {imports} s: ratio {found['ratio']} (target {TARGET_RATIO})")
    return int(float(str(found["ratio"])) > TARGET_RATIO)


if __name__ == "__main__":
    sys.exit(main())
