"""``hskcache sparsify``: what it writes and says, and which rows, scores and students each way of ranking needs."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import saved
from safetensors.numpy import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from hskcache.locks import sole_writer
from hskcache.sparsity.artifact import load_scores
from hskcache.store.files import sha256_hex

# Percent -> removed of 16 heads and of 256 neurons: the tiny teacher has 4 layers with 4 and 64.
COUNTS = {0: (0, 0), 10: (2, 26), 50: (8, 128), 90: (14, 230)}


@pytest.fixture(scope="module")
def student(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A student of one layer with this number of outputs."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)

    def make(num_labels: int) -> Path:
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=num_labels, **sizes)
        folder = tmp_path_factory.mktemp("student")
        return saved(lambda: BertForSequenceClassification(config), tokenizer, folder)

    return make


@pytest.fixture(scope="module")
def command(sources: Any, student: Any) -> tuple[object, ...]:
    """A run over four levels, but for --out."""
    return ("sparsify", *sources, "--task", "sst2", "--trial-student", student(2), "--sparsity", "0,10,50,90")


@pytest.fixture(scope="module")
def bare(tiny_teacher_dir: Path) -> tuple[object, ...]:
    """A run without rows, but for --out."""
    return ("sparsify", "--teacher", tiny_teacher_dir, "--device", "cpu")


@pytest.fixture(scope="module")
def finished(command: Any, run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a run, not to be changed, and what the run said."""
    out = tmp_path_factory.mktemp("sparse") / "o"
    result = run(*command, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, result


def test_a_folder_that_another_command_writes_is_refused(bare: Any, run: Any, tmp_path: Path) -> None:
    """Also what a kill left half done stays, which may be what the other is writing."""
    out = tmp_path / "o"
    (out / "s30.tmp").mkdir(parents=True)
    with sole_writer(out):
        result = run(*bare, "--method", "magnitude", "--sparsity", "30", "--out", out)
    assert result.exit_code == 2
    assert "o is being written by another process" in result.stderr
    assert [path.name for path in out.iterdir()] == ["s30.tmp"]
    result = run(*bare, "--method", "magnitude", "--sparsity", "30", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in out.iterdir()] == ["s30"]


def test_rows_are_as_long_as_the_task_has_them_and_a_folder_keeps_its_own(
    bare: Any, tsv_file: Path, run: Any, tmp_path: Path
) -> None:
    given = (*bare, "--balance", 1, "--data", tsv_file, "--task", "sst2", "--rows", 8, "--sparsity", "10")
    for name, length, expected in (("new", (), 64), ("old", ("--max-length", 128), 128), ("old", (), 128)):
        result = run(*given, *length, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert load_scores(tmp_path / name)[1].max_length == expected


def contents(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_hex(path.read_bytes()) for path in paths}


def zeros_of(folder: Path) -> list[tuple[list[int], int]]:
    """Of every layer: heads of 8 columns that are all zero, and the number of zero neurons."""
    weights = load_file(folder / "model.safetensors")
    found = []
    for layer in range(4):
        heads = weights[f"bert.encoder.layer.{layer}.attention.output.dense.weight"]
        neurons = weights[f"bert.encoder.layer.{layer}.output.dense.weight"]
        silent = np.flatnonzero((heads == 0).all(0).reshape(4, 8).all(1)).tolist()
        found.append((silent, int((neurons == 0).all(0).sum())))
    return found


def test_it_prints_a_table_of_what_it_wrote(finished: Any, tiny_teacher_dir: Path) -> None:
    out, result = finished
    assert {path.name for path in out.iterdir()} == {"scores.safetensors", "scores.json", "s0", "s10", "s50", "s90"}
    lines = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert lines[0] == ["level", "heads removed", "neurons removed", "folder"]
    for (percent, (heads, neurons)), line in zip(COUNTS.items(), lines[1:], strict=True):
        folder = out / f"s{percent}"
        assert line == [f"{percent} %", f"{heads} of 16", f"{neurons} of 256", str(folder)]
        info, zeros = json.loads((folder / "sparsity.json").read_text()), zeros_of(folder)
        assert (info["heads_removed"], info["neurons_removed"]) == (heads, neurons)
        assert (sum(len(silent) for silent, _ in zeros), sum(count for _, count in zeros)) == (heads, neurons)
        assert info["heads_kept"] == [[head for head in range(4) if head not in silent] for silent, _ in zeros]
        assert info["neurons_kept"] == [64 - count for _, count in zeros]
        assert info["scores_sha256"] == load_scores(out)[1].sha256
        for name in ("tokenizer.json", "config.json"):
            assert json.loads((folder / name).read_text()) == json.loads((tiny_teacher_dir / name).read_text())
    dense, level_0 = (load_file(folder / "model.safetensors") for folder in (tiny_teacher_dir, out / "s0"))
    assert all(dense[name].tobytes() == level_0[name].tobytes() for name in dense.keys() | level_0.keys())


def test_json_holds_the_table(finished: Any, command: Any, data: Any, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "o"))
    facts = data(*command, "--sparsity", "10,50,60", "--out", out)
    assert (facts["method"], facts["balance"], facts["out"]) == ("knowledge", 0.5, str(out))
    told = [(level["name"], level["heads_removed"], level["neurons_removed"]) for level in facts["levels"]]
    assert told == [("s10", *COUNTS[10]), ("s50", *COUNTS[50]), ("s60", 10, 154)]
    assert [level["was_there"] for level in facts["levels"]] == [True, True, False]
    assert AutoModelForSequenceClassification.from_pretrained(facts["levels"][2]["folder"]).num_labels == 2


def test_other_balances_and_levels_come_of_the_scores_alone(
    finished: Any, command: Any, bare: Any, run: Any, tmp_path: Path
) -> None:
    """Without the data file and the student, and as if they had been asked for at once."""
    asked = ("--sparsity", 30, "--balance", 0.2)
    assert run(*command, *asked, "--out", tmp_path / "direct").exit_code == 0
    direct = contents(tmp_path / "direct")
    assert direct["s30/model.safetensors"] not in contents(finished[0]).values()
    gone = ("--data", tmp_path / "gone.tsv", "--trial-student", tmp_path / "gone")
    for number, (name, more) in enumerate((("", ()), ("scores.safetensors", gone), ("scores.json", ()))):
        out = tmp_path / str(number)
        result = run(*bare, *asked, *more, "--scores", finished[0] / name, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert ("not used: --trial-student, --data; --scores takes" in result.stderr) == bool(more)
        assert contents(out) == direct


def test_what_is_given_and_does_nothing_is_told(finished: Any, bare: Any, run: Any, tmp_path: Path) -> None:
    """Even where it is what holds anyway; a default that nobody gave is not told of."""
    columns = ("--task", "sst2", "--text", "a", "--text-pair", "b", "--label", "c", "--no-header")
    settings = ("--rows", 5, "--seed", 0, "--batch-size", 32, "--temperature", 2, "--max-length", 128)
    flags = (
        "--data, --task, --text, --text-pair, --label, --header, {}--rows, {}--batch-size, --temperature, --max-length"
    )
    scores = ("--scores", finished[0])
    for out, given, named in (
        ("scores", scores, ("", "--seed, ")),
        ("magnitude", (*scores, "--method", "magnitude"), ("--scores, ", "--seed, ")),
        ("random", (*scores, "--method", "random"), ("--scores, ", "")),
    ):
        base = (*bare, *given, "--sparsity", "50", "--out")
        told = run(*base, tmp_path / out, "--data", "gone.tsv", *columns, *settings)
        assert told.exit_code == 0, told.stderr
        line = next(line for line in told.stderr.splitlines() if line.startswith("not used: "))
        assert line.startswith(f"not used: {flags.format(*named)}; ")
    assert "not used" not in run(*bare, *scores, "--sparsity", "50", "--out", tmp_path / "scores").stderr


def test_more_levels_may_stand_beside_the_scores_they_come_of(
    finished: Any, bare: Any, run: Any, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "o"))
    result = run(*bare, "--sparsity", "50,60", "--scores", out, "--out", out)
    assert "sparse teachers asked for 2, already there 1" in result.stderr
    assert contents(finished[0]).items() < contents(out).items()


def test_balance_1_needs_no_student_and_its_scores_serve_no_other(
    sources: Any, command: Any, bare: Any, run: Any, refused: Any, tmp_path: Path
) -> None:
    levels = ("--sparsity", "50", "--balance", 1)
    assert run("sparsify", *sources, "--task", "sst2", *levels, "--out", tmp_path / "o").exit_code == 0
    assert run(*command, *levels, "--out", tmp_path / "both").exit_code == 0
    weights = [(tmp_path / out / "s50" / "model.safetensors").read_bytes() for out in ("o", "both")]
    assert weights[0] == weights[1]
    assert set(load_file(tmp_path / "o" / "scores.safetensors")) == {"expressive/heads", "expressive/neurons"}
    line = refused(*bare, "--scores", tmp_path / "o", "--out", tmp_path / "later")
    assert "student-friendly scores, and there are none" in line
    assert not (tmp_path / "later").exists()


def test_rows_without_labels_are_enough_for_balance_0(command: Any, run: Any, refused: Any, tmp_path: Path) -> None:
    unlabelled = (*command, "--label", "", "--sparsity", "50", "--out", tmp_path / "o")
    assert "needs labels" in refused(*unlabelled)
    assert run(*unlabelled, "--balance", 0).exit_code == 0
    assert set(load_file(tmp_path / "o" / "scores.safetensors")) == {"friendly/heads", "friendly/neurons"}


def test_some_rows_are_drawn_by_the_seed(command: Any, run: Any, tmp_path: Path) -> None:
    digests = {}
    for out, (rows, seed) in {"a": (20, 1), "b": (20, 1), "c": (20, 2), "d": (1000, 2)}.items():
        drawn = ("--rows", rows, "--seed", seed, "--sparsity", "10", "--out", tmp_path / out)
        assert run(*command, *drawn).exit_code == 0
        info = load_scores(tmp_path / out)[1]
        assert (info.data.num_rows, info.data.seed) == ((20, seed) if rows == 20 else (96, None))
        digests[out] = info.sha256
    assert digests["a"] == digests["b"]
    assert len(set(digests.values())) == 3


def test_magnitude_and_random_need_no_rows(bare: Any, run: Any, refused: Any, tmp_path: Path) -> None:
    kept = set()
    for out, seed, method in (("m", None, "magnitude"), ("r", 0, "random"), ("s", 1, "random")):
        given = (*bare, "--method", method, "--sparsity", "10,50", "--out", tmp_path / out)
        result = run(*given, *(() if seed is None else ("--seed", seed)), "--balance", 0.3)
        assert result.exit_code == 0, result.stderr
        assert f"not used: --balance; --method {method} scores no rows" in result.stderr
        assert {path.name for path in (tmp_path / out).iterdir()} == {"s10", "s50"}
        info = json.loads((tmp_path / out / "s50" / "sparsity.json").read_text())
        assert (info["heads_removed"], info["neurons_removed"]) == COUNTS[50]
        assert (info["method"], info["seed"], info["balance"], info["scores_sha256"]) == (method, seed, None, None)
        kept.add(repr((info["heads_kept"], info["neurons_kept"])))
    assert len(kept) == 3
    line = refused(*bare, "--method", "random", "--seed", 2, "--sparsity", 20, "--out", tmp_path / "r")
    assert "s10 is there with seed 0 and this command gives 2" in line


def test_a_regression(
    run: Any, refused: Any, student: Any, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    config = BertConfig.from_pretrained(tiny_teacher_dir, num_labels=1, problem_type="regression")
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    teacher = saved(lambda: BertForSequenceClassification(config), tokenizer, tmp_path / "teacher")
    lines = tsv_file.read_text().splitlines()
    rows = tmp_path / "rows.tsv"
    rows.write_text("".join(f"{line}.{number % 10}\n" if number else f"{line}\n" for number, line in enumerate(lines)))
    columns = ("--text", "sentence", "--label", "label", "--device", "cpu", "--sparsity", "50")
    given = ("sparsify", "--teacher", teacher, "--data", rows, *columns, "--out", tmp_path / "o")
    assert run(*given, "--trial-student", student(1)).exit_code == 0
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "o" / "s50").num_labels == 1
    assert "has 2 outputs and" in refused(*given, "--trial-student", student(2))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_extra_is_named(package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; from hskcache.cli import main; main()"
    words = ["sparsify", "--teacher", "t", "--method", "magnitude", "--out", "o"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {package} is not installed; install the extra: pip install 'hskcache[teacher]'\n"
