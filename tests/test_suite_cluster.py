"""A suite on a Ray cluster: shares of a card by arithmetic; two real nodes, packed, one of them lost on the way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftselect.errors import InputError
from peftselect.problem import GIB
from peftselect.results import user_store
from peftselect.suite import Outcome, SuiteRun
from peftselect.suite import cluster as on_ray
from peftselect.suite.outcome import failed_record

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'peftselect[ray]'"
)
#: memory of a card of the test's cluster; its cards are there in name only, so that runs train on the CPU
CARD_GIB = 2
SUITE = """
about = "a test"
[defaults]
task = "classification"
model = "{model}"
train = "train.jsonl"
max_steps = {steps}
vram_gib = 1
[grid]
method = {methods}
seed = [0, 1]
"""


@pytest.mark.parametrize(
    ("needed", "card", "share"), [(1, 4, 0.25), (1, 3, 0.3334), (4, 4, 1.0), (9, 4, 1.0), (0.00001, 4, 0.0001)]
)
def test_the_share_of_a_card_covers_what_is_needed(needed: float, card: float, share: float) -> None:
    assert on_ray.card_share(needed * GIB, card * GIB) == share


def test_runs_ask_for_what_is_predicted_of_them(tmp_path: Path, tiny_models: Any) -> None:
    known = {"task": "classification", "model": str(tiny_models("bert")), "train": rows(tmp_path), "set": {}}
    small, large, wrong = (
        SuiteRun("small", {**known, **more})
        for more in ({"method": "lora"}, {"method": "lora", "model": "roberta-large"}, {"method": "nonsense"})
    )
    ended: list[Outcome] = []
    placed = on_ray._place([small, wrong, large], 24 * GIB, ended.append)
    assert [item.run for item in placed] == [small, large]
    assert 0 < placed[0].share < 0.05 < placed[1].share < 1
    assert {item.vram_gib for item in placed} == {24}
    assert [(item.status, item.because) for item in ended] == [("failed", "unknown method 'nonsense'")]
    assert [record.status for record in user_store().read()] == ["failed"]
    assert [item.share for item in on_ray._place([small], None, ended.append)] == [0.0]


def rows(folder: Path) -> str:
    file = folder / "train.jsonl"
    lines = [{"text": f"w{at} {'good' if at % 2 else 'bad'} film", "label": str(at % 2)} for at in range(40)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "there is no Ray cluster at 127.0.0.1:1 (Connection refused)"),
        ("head", "--ray head is no address"),
    ],
)
def test_an_address_where_no_cluster_is(peftselect: Any, tmp_path: Path, address: str, message: str) -> None:
    (tmp_path / "packed.toml").write_text(SUITE.format(model="none", steps=1, methods='["lora"]'))
    done = peftselect("benchmark", "run", "packed.toml", "--ray", address)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {message}")


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught:
        on_ray.run_on_cluster([], tmp_path, "auto", None, print, print)
    assert (caught.value.message, caught.value.hint) == ("Ray is not installed", "pip install 'peftselect[ray]'")


class Scripted:
    """What of Ray the driver calls, with answers that are laid down: how it goes on is what is tested."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            """As Ray's own."""

    def __init__(self, *answers: tuple[str, str] | None) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "n", "Alive": True, "Resources": {"GPU": 1.0}}]

    def remote(self, **options: Any) -> Any:
        def submit(text: str) -> str:
            self.asked.append(options["num_gpus"])
            return f"{len(self.asked)} {text}"

        return lambda work: SimpleNamespace(remote=submit)

    def wait(self, refs: list[str]) -> tuple[list[str], list[str]]:
        return refs[:1], refs[1:]

    def get(self, ref: str) -> str:
        answer = self.answers.pop(0)
        if answer is None:
            raise self.exceptions.RayError("The node died.\nMore.")
        request = json.loads(ref.partition(" ")[2])
        record = failed_record(SuiteRun(request["suite"], request["arguments"]), *answer).to_json()
        return json.dumps({"status": answer[1], "because": answer[0], "record": record, "records": [record]})

    def shutdown(self) -> None:
        self.over = True


def test_memory_that_neighbours_took_is_no_failure_and_what_is_lost_for_good_is_one(
    tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"task": "classification", "model": str(tiny_models("bert")), "train": rows(tmp_path), "set": {}}
    runs = [SuiteRun("small", {**known, "method": name}) for name in ("lora", "bitfit", "head_only")]
    # the first runs out of memory beside others, then alone as well; the second only beside others; the third is lost
    ray = Scripted(("crowded", "oom"), ("crowded", "oom"), None, ("alone", "oom"), ("", "ok"))
    monkeypatch.setattr(on_ray, "_connect", lambda address: ray)
    ended: list[Outcome] = []
    on_ray.run_on_cluster(runs, tmp_path / "out", "auto", 4, lambda _: None, ended.append)
    assert ray.over
    assert [share < 0.5 for share in ray.asked] == [True, True, True, False, False]
    assert ray.asked[3:] == [1.0, 1.0]
    assert [(item.run.arguments["method"], item.status) for item in ended] == [
        ("head_only", "failed"), ("lora", "oom"), ("bitfit", "ok")]  # fmt: skip
    assert ended[0].because == "lost on the cluster 4 times (The node died.)"
    assert sorted((record.status, record.note) for record in user_store().read()) == [
        ("failed", ended[0].because), ("ok", ""), ("oom", "alone")]  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """A head that takes no work, and two machines with two cores and a card each."""
    # workers that yield to everything else would never come to an end on a busy machine
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_worker_niceness", "0"), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    made.machines = [made.add_node(num_cpus=2, num_gpus=1, **small) for _ in range(2)]
    try:
        yield made
    finally:
        made.shutdown()


def command(folder: Path, suite: str, address: str) -> list[str]:
    (folder / "packed.toml").write_text(suite)
    words = ["benchmark", "run", "packed.toml", "--ray", address, "--card", str(CARD_GIB), "--json"]
    return [sys.executable, "-m", "peftselect", *words]


@needs_ray
@pytest.mark.slow
def test_small_runs_pack_onto_cards_and_results_come_back(cluster: Any, tmp_path: Path, tiny_models: Any) -> None:
    rows(tmp_path)
    text = SUITE.format(model=tiny_models("bert"), steps=2, methods='["head_only", "lora"]')
    done = subprocess.run(
        command(tmp_path, text, cluster.address), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [item["status"] for item in found] == ["ok"] * 4
    assert {record.id for record in user_store().read()} == {item["record"]["id"] for item in found}
    places = [item["record"]["environment"]["suite"] for item in found]
    for place, item in zip(places, found, strict=True):
        needed = item["record"]["predicted"]["peak_memory_bytes"]
        assert needed / (CARD_GIB * GIB) < place["card_share"] < 0.5
        assert len(place["cards"]) == 1
        place["ended"] = datetime.fromisoformat(item["record"]["created_at"]).timestamp()
    for place in places:  # what shares a card fits on it, at any moment
        beside = [o for o in places if o["node"] == place["node"] and o["began"] <= place["began"] < o["ended"]]
        assert sum(other["card_share"] for other in beside) <= 1
    together = [
        (one, other)
        for one in places for other in places
        if one is not other and one["node"] == other["node"] and one["began"] < other["began"] < one["ended"]
    ]  # fmt: skip
    assert together, "four runs on two cards: some share one"
    again = subprocess.run(
        command(tmp_path, text, cluster.address), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert [item["status"] for item in json.loads(again.stdout)] == ["recorded before"] * 4


@needs_ray
@pytest.mark.slow
def test_the_run_of_a_lost_machine_is_begun_anew(cluster: Any, tmp_path: Path, tiny_models: Any) -> None:
    rows(tmp_path)
    text = SUITE.format(model=tiny_models("bert"), steps=20, methods='["lora", "bitfit"]')
    process = subprocess.Popen(
        command(tmp_path, text, cluster.address), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    output = tmp_path / "peftselect-output" / "packed"
    until = time.monotonic() + 600
    while len(list(output.glob(".*.unfinished/order.json"))) < 3:  # more than one machine takes at once
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.2)
    lost = cluster.machines.pop()
    name = lost.node_id
    cluster.remove_node(lost, allow_graceful=False)
    said, _ = process.communicate(timeout=900)
    found = json.loads(said)
    assert [item["status"] for item in found] == ["ok"] * 4, found
    assert process.returncode == 0
    nodes = [item["record"]["environment"]["suite"]["node"] for item in found]
    assert name not in nodes, "all that it had was run again elsewhere"
    assert len(user_store().read()) == 4
