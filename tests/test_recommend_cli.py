"""``peftselect recommend`` as a newcomer sees it: the order of the answer, the last line, errors, exit codes."""

from __future__ import annotations

import json
import re
import shlex

import pytest

QUESTION = ("recommend", "--task", "summarization", "--model", "flan-t5-base", "--vram", "4", "--num-examples", "800")


def skeleton(text: str) -> list[str]:
    """The lines without their figures and without what wraps: the first word or words of each part."""
    return [re.sub(r"\s{2,}.*", "", line) for line in text.splitlines() if line.strip() and not line.startswith(" ")]


def test_the_answer_reads_from_the_question_to_the_command(peftselect) -> None:
    done = peftselect(*QUESTION, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "Summarization with flan-t5-base, 4 GiB"
    assert lines[1] == (
        "248 M parameters, batch 8, input up to 512 tokens, output up to 128, 800 training examples (given)"
    )
    assert lines[3] == "Recommended: LoRA (lora)"
    parts = skeleton(done.stdout)
    wanted = ["settings", "recipe", "memory", "parameters", "adapter", "time", "why", "how sure"]
    assert [part for part in parts if part in wanted] == wanted
    order = [parts.index(name) for name in ("why", "how sure", "Candidates", "Left out")]
    assert order == sorted(order)
    assert re.search(
        r"^parameters  trains 1,769,472 \(0.71 %\) of 249 M, changes 42.5 M, rank 16\s*$", done.stdout, re.M
    )
    assert re.search(r"^ +1 +lora ", done.stdout, re.M)
    assert re.search(r"^ full_finetuning +memory +It needs [\d.]+ GiB of 4 GiB", done.stdout, re.M)
    assert lines[-2] == "To train it, put your own file in place of TRAIN.jsonl:"
    assert lines[-1].startswith(
        "peftselect run --task summarization --model flan-t5-base --train TRAIN.jsonl --method lora"
    )
    assert max(map(len, lines[:-1])) <= 100


def test_eighty_columns_are_enough(peftselect) -> None:
    done = peftselect(*QUESTION, COLUMNS="80")
    lines = done.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    header = next(line for line in lines if line.lstrip().startswith("# "))
    assert header.split() == ["#", "method", "memory", "trained", "adapter", "time", "quality", "basis"]
    assert re.search(r"^ +\d+ +prefix_tuning_peft +[\d.]+ [GM]iB ", done.stdout, re.M), "a row is one line"


def test_the_pareto_front_and_the_utility(peftselect) -> None:
    from peftselect.selector import scoring

    done = peftselect(*QUESTION, "--pareto", "--explain", "--no-trace", COLUMNS="300")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Pareto front *$", done.stdout, re.M)
    assert re.search(r"chosen by --prefer *$", done.stdout, re.M)
    assert f"Utility, by which ties are decided: {scoring.UTILITY}." in " ".join(done.stdout.split())
    line = re.search(r"^score +([+-][\d.]+) points: quality ([+-][\d.]+)((?: - .+)+)$", done.stdout, re.M)
    assert line, "the utility is shown with its numbers"
    taken = sum(float(part.split()[-1]) for part in line[3].split(" - ")[1:])
    shown = json.loads(peftselect(*QUESTION, "--pareto", "--no-trace", "--json").stdout)
    on_it = {prefer for point in shown["pareto"] for prefer in point["chosen_by"]}
    beside_it = set(re.findall(r"--prefer (\w+) recommends \w+, off the front", " ".join(done.stdout.split())))
    assert on_it and on_it | beside_it == {"quality", "memory", "speed", "size"} and not on_it & beside_it
    assert "pareto" not in json.loads(peftselect(*QUESTION, "--no-trace", "--json").stdout)
    assert float(line[1]) == pytest.approx(float(line[2]) - taken, abs=0.03)


def test_the_last_line_is_a_command_that_run_accepts(peftselect) -> None:
    from peftselect.cli.run import run

    for more in ((), ("--must", "merge", "--trait", "faithful"), ("--columns", "source=my text"), ("--devices", "2")):
        words = shlex.split(peftselect(*QUESTION, *more).stdout.splitlines()[-1])
        assert words[:2] == ["peftselect", "run"]
        context = run.make_context("run", words[2:])
        assert context.params["task"] == "summarization"
        assert context.params["method"]
        assert context.params["vram_gib"] == 4


def test_awkward_names_are_quoted(peftselect, tmp_path) -> None:
    folder = tmp_path / "my model's folder"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 128,'
        ' "architectures": ["T5ForConditionalGeneration"]}'
    )
    done = peftselect("recommend", "--task", "summarization", "--model", folder, "--vram", "4")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[words.index("--model") + 1] == str(folder)


def test_explain_shows_every_candidate_in_full(peftselect) -> None:
    few, full = peftselect(*QUESTION, "--top", "3"), peftselect(*QUESTION, "--top", "3", "--explain")
    assert few.stdout.count("how sure") == 1
    assert full.stdout.count("how sure") == 3
    assert sum(line.startswith("score ") for line in full.stdout.splitlines()) == 3
    assert "cuda context" in full.stdout
    assert "more with --explain" not in full.stdout


def test_without_a_budget_the_answer_says_so(peftselect) -> None:
    done = peftselect("recommend", "--task", "qa", "--model", "bert-base-uncased", "--device", "cpu")
    assert done.returncode == 0
    assert done.stdout.startswith("Question answering with bert-base-uncased, no memory limit\n") or (
        "no memory limit" in done.stdout.splitlines()[0]
    )
    assert "The memory budget is unlimited" in done.stdout


@pytest.mark.parametrize(("method", "simplified"), [("upl_dynamic", True), ("bitfit", False)])
def test_what_a_method_simplifies_is_said_before_it_is_believed(peftselect, method: str, simplified: bool) -> None:
    asked = ("--task", "classification", "--vram", "8", "--num-examples", "500", "--method", method, "--no-trace")
    done = peftselect("recommend", *asked)
    assert done.returncode == 0, done.stderr
    said = "upl_dynamic is simplified here, which records of its paper do not know: The instance is the mean"
    assert (said in " ".join(done.stdout.split())) == simplified


def test_nothing_fits_is_exit_code_3_with_the_ways_out(peftselect) -> None:
    done = peftselect("recommend", "--task", "summarization", "--model", "flan-t5-base", "--vram", "0.3")
    assert done.returncode == 3
    assert "Nothing fits" in done.stdout
    assert "Left out" in done.stdout
    assert "peftselect run" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ((), "which task? --task is missing", "summarization"),
        (("--task", "sumarization"), "unknown task 'sumarization'", "did you mean summarization"),
        (
            ("--task", "ner", "--model", "bert-base-uncase"),
            "unknown base model 'bert-base-uncase'",
            "bert-base-uncased",
        ),
        (("--task", "ner", "--model", "./nowhere"), "there is no folder ./nowhere", "config.json"),
        (("--task", "ner", "--vram", "-4"), "--vram -4 is not an amount of memory", "--vram 8"),
        (("--task", "ner", "--vram", "lots"), "Invalid value for '--vram'", "--help"),
        (("--task", "ner", "--max-time", "soon"), "--max-time soon is not a length of time", "1h30m"),
        (("--task", "ner", "--must", "merg"), "unknown need 'merg'", "did you mean merge?"),
        (("--task", "ner", "--must", "merge,fly"), "unknown need 'fly'", "quantized-base"),
        (("--task", "ner", "--trait", "simpel"), "unknown trait 'simpel'", "did you mean simple?"),
        (("--task", "ner", "--method", "lorra"), "unknown method 'lorra'", "lora"),
        (("--task", "ner", "--method", "lora", "--set", "r"), "--set 'r' is not name=value", "--set name=value"),
        (("--task", "ner", "--method", "lora", "--set", "r=two"), "r='two' is not a whole number", "rank"),
        (("--task", "ner", "--method", "lora", "--set", "r=0"), "r='0' is out of range", "1..1024"),
        (("--task", "ner", "--set", "r=8"), "which method is r for?", "--method"),
        (("--task", "ner", "--columns", "text"), "--columns 'text' is not name=value", "name=value"),
        (("--task", "ner", "--batch-size", "0"), "--batch-size 0 is too small", "1 or more"),
        (("--task", "ner", "--train", "none.jsonl"), "none.jsonl", ""),
        (("--task", "ner", "--sharding", "zero2"), "sharding zero2 needs several devices", "--devices"),
        (("--task", "ner", "--prefer", "cheap"), "Invalid value for '--prefer'", "--help"),
    ],
)
def test_bad_input_is_one_line_a_hint_and_exit_code_2(peftselect, arguments, error: str, hint: str) -> None:
    done = peftselect("recommend", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
