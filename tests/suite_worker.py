"""A worker of a suite without training: it sleeps and says when, or dies as its run's ``method`` says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from peftselect.suite.definition import SuiteRun
from peftselect.suite.outcome import failed_record

if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        item = SuiteRun(request["suite"], request["arguments"])
        began = time.time()
        print(f"run {item.key}", file=sys.stderr, flush=True)
        if item.arguments["method"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if item.arguments["method"] == "exits":
            sys.exit(5)
        time.sleep(item.arguments["seconds"])
        said = f"{began} {time.time()} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}"
        record = failed_record(item, said, "ok").to_json()
        print(json.dumps({"status": "ok", "because": "", "record": record}), flush=True)
