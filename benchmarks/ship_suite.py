"""Take a suite's finished runs into the shipped records, one file a data set.

    peftselect benchmark run SUITE --output RUNS
    python -m peftselect.benchmarks.ship_suite SUITE RUNS [FOLDER]

Reads RUNS/KEY/run.json of every run of the suite and writes ``benchmarks/results/SUITE/DATASET.jsonl``. What was
predicted of a run, the machine, and times, which hang on what else that did, are left out; the source is the suite.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peftselect.record import RunRecord
from peftselect.results import write_json_lines
from peftselect.suite import Suite, load_suite

#: what is kept of the measurements and of the environment
MEASURED = ("peak_memory_bytes", "peak_rss_growth_bytes", "steps", "best_step", "stopped_early",
            "adapter_bytes", "tokens")  # fmt: skip
ENVIRONMENT = ("python", "torch", "transformers", "peft", "device")


def finished(suite: Suite, runs: Path) -> Iterator[RunRecord]:
    """The records of the suite's runs which ended, whatever their status, made small."""
    for item in suite.runs:
        file = runs / item.key / "run.json"
        if not file.is_file():
            continue
        record = RunRecord.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
        yield replace(
            record,
            source=f"peftselect suite {suite.name}",
            measured={name: record.measured[name] for name in MEASURED if name in record.measured},
            environment={name: record.environment[name] for name in ENVIRONMENT if name in record.environment},
            predicted={},
        )


def ship(suite: Suite, runs: Path, folder: Path) -> int:
    """Write the files and return how many records they hold."""
    files: dict[str, list[RunRecord]] = defaultdict(list)
    for record in finished(suite, runs):
        files[str(record.problem["dataset"])].append(record)
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in sorted(files.items()):
        write_json_lines(records, folder / f"{name}.jsonl")
    return sum(map(len, files.values()))


def main() -> None:
    """Ship what the arguments name, and say how much it is."""
    suite = load_suite(sys.argv[1])
    target = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(__file__).parent / "results" / suite.name
    print(f"{ship(suite, Path(sys.argv[2]), target)} records of {len(suite.runs)} runs: {target}")


if __name__ == "__main__":
    main()
