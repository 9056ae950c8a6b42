"""Convert the tables of R. Negi's thesis (a long CSV, one row a number) into run records, one file a table.

    python -m peftselect.benchmarks.import_thesis results.csv [FOLDER]

Writes ``benchmarks/results/thesis/table_2_5.jsonl`` and so on. Scores keep the table's own scale (``problem.scale``
says whether a table prints fractions or percentages); losses and training hours are measurements, not scores.
`peftselect results import` reads the same tables in the same way (:mod:`peftselect.importing.tables`).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from peftselect.importing.tables import convert
from peftselect.record import RunRecord
from peftselect.results import write_json_lines


def write(tables: dict[str, list[RunRecord]], folder: Path) -> None:
    """One JSON-lines file a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, records in sorted(tables.items()):
        write_json_lines(records, folder / f"table_{table.replace('.', '_')}.jsonl")


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "results" / "thesis"
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as stream:
        write(convert(csv.DictReader(stream)), target)
