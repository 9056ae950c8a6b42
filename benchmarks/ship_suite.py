"""Take a suite's finished runs into the shipped records, one file a data set.

    peftselect benchmark run SUITE --output RUNS
    python -m peftselect.benchmarks.ship_suite SUITE RUNS [FOLDER]

Reads RUNS/KEY/run.json of every run of the suite and writes ``benchmarks/results/SUITE/DATASET.jsonl``. What the files
hold already stays, but for runs that were run again: methods can be added to a suite without the others' runs.
Comparisons that fewer than eight methods have run yet wait: half a comparison, or half of its second seed, would
mislead. What was predicted of a run, the machine, and times, which hang on what else that did, are left out; the source
is the suite.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peftselect.record import RunRecord
from peftselect.results import read_json_lines, write_json_lines
from peftselect.suite import Suite, load_suite

#: methods that a comparison needs
LEAST_METHODS = 8
#: what is kept of the measurements and of the environment
MEASURED = ("peak_memory_bytes", "peak_rss_growth_bytes", "steps", "best_step", "stopped_early",
            "adapter_bytes", "tokens")  # fmt: skip
ENVIRONMENT = ("python", "torch", "transformers", "peft", "device", "suite")


def finished(suite: Suite, runs: Path) -> Iterator[RunRecord]:
    """The records of the suite's runs which ended, whatever their status, made small."""
    for file in (runs / item.key / "run.json" for item in suite.runs):
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
    folder.mkdir(parents=True, exist_ok=True)
    shipped = (record for file in sorted(folder.glob("*.jsonl")) for record in read_json_lines(file))
    records = {record.environment["suite"]["key"]: record for record in (*shipped, *finished(suite, runs))}
    comparisons: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records.values():
        comparisons[json.dumps([record.problem, record.seed], sort_keys=True)].append(record)
    files: dict[str, list[RunRecord]] = defaultdict(list)
    for compared in comparisons.values():
        if len({record.candidate["method"] for record in compared}) >= LEAST_METHODS:
            files[str(compared[0].problem["dataset"])] += compared
    for name, found in sorted(files.items()):
        write_json_lines(found, folder / f"{name}.jsonl")
    return sum(map(len, files.values()))


def main() -> None:
    """Ship what the arguments name, and say how much it is."""
    suite = load_suite(sys.argv[1])
    target = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(__file__).parent / "results" / suite.name
    print(f"{ship(suite, Path(sys.argv[2]), target)} records of {len(suite.runs)} runs: {target}")


if __name__ == "__main__":
    main()
