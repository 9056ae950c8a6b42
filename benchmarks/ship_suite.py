"""Take a suite's finished runs into the shipped records, one file a data set.

    peftselect benchmark run SUITE --output RUNS
    python -m peftselect.benchmarks.ship_suite SUITE RUNS [FOLDER]

Reads RUNS/KEY/run.json of every run of the suite and writes ``benchmarks/results/SUITE/DATASET.jsonl``. Comparisons
that fewer than eight methods have run yet wait: half a comparison, or half of its second seed, would mislead. What was
predicted of a run, the machine, and times, which hang on what else that did, are left out; the source is the suite.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peftselect.record import RunRecord
from peftselect.results import write_json_lines
from peftselect.suite import Suite, SuiteRun, load_suite

#: methods that a comparison needs
LEAST_METHODS = 8
#: what is kept of the measurements and of the environment
MEASURED = ("peak_memory_bytes", "peak_rss_growth_bytes", "steps", "best_step", "stopped_early",
            "adapter_bytes", "tokens")  # fmt: skip
ENVIRONMENT = ("python", "torch", "transformers", "peft", "device")


def finished(suite: Suite, runs: Path) -> Iterator[RunRecord]:
    """The records of the suite's runs which ended, whatever their status, made small; whole comparisons alone."""
    places = {item.key: runs / item.key / "run.json" for item in suite.runs}
    ended = [item for item in suite.runs if places[item.key].is_file()]
    methods = Counter(_comparison(item) for item in ended)
    for item in ended:
        if methods[_comparison(item)] < LEAST_METHODS:
            continue
        file = places[item.key]
        record = RunRecord.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
        yield replace(
            record,
            source=f"peftselect suite {suite.name}",
            measured={name: record.measured[name] for name in MEASURED if name in record.measured},
            environment={name: record.environment[name] for name in ENVIRONMENT if name in record.environment},
            predicted={},
        )


def _comparison(item: SuiteRun) -> str:
    return json.dumps({name: value for name, value in item.arguments.items() if name != "method"}, sort_keys=True)


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
