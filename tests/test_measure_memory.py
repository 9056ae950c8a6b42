"""The script that measures on a card: its plan, its predictions and its record, without a card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_a_dry_run_plans_predicts_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    results = tmp_path / "measured.jsonl"
    script = [sys.executable, str(ROOT / "benchmarks" / "measure_memory.py"), "--dry-run", "--limit", "1"]
    for _ in range(2):
        done = subprocess.run(
            [*script, "--only", "roberta-large", "--results", str(results)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    first, second = map(json.loads, results.read_text().splitlines())
    assert first["case"] != second["case"]
    for result in (first, second):
        assert result["status"] == "planned"
        assert 0 < result["predicted_allocated_bytes"] <= result["predicted_reserved_bytes"]
