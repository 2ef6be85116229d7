"""``hskcache augment`` from the command line: what it says, what it refuses, and that a cache is built of its rows."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from glue_forms import BAD, FORMS, GOOD, PLACES, QUIRKS, SUBJECTS, Form
from real import real_file

from hskcache.augment import Chance, Pairs
from hskcache.augment.vectors import LIMIT
from hskcache.cache import open_cache
from hskcache.cli import main
from hskcache.locks import sole_writer
from hskcache.text import Examples, load_task
from hskcache.text.copies import in_order_of_copies
from hskcache.text.layout import Layout

VECTORS = "calm 1 0\nquiet 1 0.1\nserene 1 0.3\ncharming 0 1\nlovely 0.1 1\n"
ENTRY = "from hskcache.cli import main; main()"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "v.txt"
    path.write_text(VECTORS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def args(tsv_file: Path, masked_lm_dir: Path, vectors: Path) -> tuple[object, ...]:
    """An augmentation of 96 rows, but for --out."""
    models = ("--masked-lm", masked_lm_dir, "--vectors", vectors, "--device", "cpu")
    return ("augment", "--data", tsv_file, "--task", "sst2", *models, "--candidates", 5)


def read(path: Path) -> Examples:
    return Layout("sst2", None, None, None, None).read(str(path))


def test_it_says_what_it_did_and_a_second_time_that_it_is_done(args: Any, run: Any, data: Any, tmp_path: Path) -> None:
    result = run(*args, "--out", tmp_path / "o.tsv")
    assert result.exit_code == 0, result.stderr
    num_rows = len(read(tmp_path / "o.tsv"))
    assert f"o.tsv is finished: 96 rows in, {num_rows:,} rows out" in result.stderr
    assert result.stdout == ""
    facts = data(*args, "--out", tmp_path / "o.tsv")
    assert facts["was_there"]
    assert facts["counts"]["rows_out"] == num_rows
    assert facts["provenance"]["task"] == "sst2"
    again = run(*args, "--out", tmp_path / "o.tsv")
    assert again.exit_code == 0
    assert f"is already finished: 96 rows in, {num_rows:,} rows out" in again.stderr


def test_a_file_that_another_command_writes_is_refused(args: Any, run: Any, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "o.tsv", is_file=True):
        result = run(*args, "--out", tmp_path / "o.tsv")
    assert result.exit_code == 2
    assert "o.tsv is being written by another process" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_number_of_copies_is_the_tasks_unless_it_is_given(args: Any, data: Any, tmp_path: Path) -> None:
    """The paper's numbers, 20 where there is no task."""
    numbers = {name: load_task(name).copies for name in ("cola", "mrpc", "stsb", "rte", "sst2", "qnli", "mnli", "qqp")}
    assert list(numbers.values()) == [30, 30, 30, 30, 20, 20, 10, 10]
    assert data(*args, "--out", tmp_path / "task.tsv")["request"]["copies"] == 20
    assert data(*args, "--copies", 1, "--out", tmp_path / "one.tsv")["request"]["copies"] == 1
    assert len(read(tmp_path / "one.tsv")) <= 2 * 96
    columns = ("--text", "sentence", "--label", "label", "--vectors", args[8], "--out", tmp_path / "none.tsv")
    assert data("augment", "--data", args[2], *columns)["request"]["copies"] == 20
    rte = tmp_path / "rte.tsv"
    rte.write_text("index\tsentence1\tsentence2\tlabel\n0\tcalm\tcharming\tentailment\n")
    facts = data("augment", "--data", rte, "--task", "rte", "--vectors", args[8], "--out", tmp_path / "pairs.tsv")
    assert facts["request"]["copies"] == 30
    assert facts["counts"]["vectors"] == 2
    # Two neighbours of each text, one text at a time, or any two of them together.
    assert facts["counts"]["rows_out"] <= 1 + 2 * 4


def test_the_rules_of_before_can_be_asked_for(args: Any, data: Any, run: Any, tmp_path: Path) -> None:
    """Texts of a pair together, no possessives, every vector: what was asked for by default before."""
    rte = tmp_path / "rte.tsv"
    rte.write_text("index\tsentence1\tsentence2\tlabel\n0\tcalm's\tcharming\tentailment\n")
    given = ("augment", "--data", rte, "--task", "rte", "--vectors", args[8], "--probability", 1, "--candidates", 1)
    new = data(*given, "--vectors-limit", 4, "--out", tmp_path / "new.tsv")
    assert (tmp_path / "new.tsv").read_text().splitlines()[1:] == [
        "0\tcalm's\tcharming\tentailment\t0\t0",
        "0\tquiet's\tcharming\tentailment\t0\t1",
        "0\tcalm's\tserene\tentailment\t0\t31",
    ]
    assert {name: new["request"][name] for name in ("pairs", "possessives", "vectors_limit")} == {
        "pairs": "one-at-a-time",
        "possessives": True,
        "vectors_limit": 4,
    }
    flags = ("--pairs", "both", "--no-possessives", "--vectors-limit", 0, "--out", tmp_path / "old.tsv")
    assert not {"pairs", "possessives", "vectors_limit"} & data(*given, *flags)["request"].keys()
    assert (tmp_path / "old.tsv").read_text().splitlines()[2:] == ["0\tcalm's\tlovely\tentailment\t0\t1"]
    # All at once, as a user types them.
    told = run(*given, "--vectors-limit", 4, "--out", tmp_path / "old.tsv").stderr
    assert told.endswith("ask for the same: --pairs both --no-possessives --vectors-limit 0\n")
    told = run(*given, *flags[:3], "--vectors-limit", 4, *flags[-2:]).stderr
    assert told.endswith("ask for the same: --vectors-limit 0\n")


def test_a_cache_is_built_of_the_output_with_the_same_options(
    args: Any, run: Any, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.tsv"
    assert run(*args, "--copies", 3, "--out", out).exit_code == 0
    build = ("build", "--teacher", tiny_teacher_dir, "--data", out, "--task", "sst2", "--keep", "none")
    assert run(*build, "--device", "cpu", "--out", tmp_path / "c").exit_code == 0
    cache = open_cache(tmp_path / "c")
    assert cache.num_rows == len(read(out)) > 96
    assert cache.manifest.request.data.fingerprint == in_order_of_copies(read(out), str(out)).fingerprint


def test_an_augmentation_that_sigkill_ends_goes_on_to_the_same_bytes(args: Any, run: Any, tmp_path: Path) -> None:
    """A process of its own, killed as soon as the first rows are recorded."""
    rows = tmp_path / "rows.tsv"
    lines = Path(str(args[2])).read_text(encoding="utf-8").splitlines()
    # No sentence comes twice, so that every chunk takes its time.
    rows.write_text("\n".join([lines[0], *(f"{number} {line}" for number, line in enumerate(lines[1:] * 5))]) + "\n")
    args = (args[0], "--data", rows, *args[3:], "--batch-size", 4)
    out, undisturbed = tmp_path / "o.tsv", tmp_path / "undisturbed.tsv"
    words = [str(word) for word in (*args, "--out", out)]
    child = subprocess.Popen([sys.executable, "-c", ENTRY, *words], stderr=subprocess.PIPE)
    progress = tmp_path / "o.tsv.progress.json"
    deadline = time.monotonic() + 180
    while not (progress.exists() and json.loads(progress.read_bytes())["counts"]["rows_in"]):
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not out.exists()
    assert run(*args, "--out", out).exit_code == 0
    assert run(*args, "--out", undisturbed).exit_code == 0
    assert out.read_bytes() == undisturbed.read_bytes()


def test_what_is_missing_is_said(args: Any, run: Any, tmp_path: Path) -> None:
    data, models = args[:5], args[5:9]
    without_vectors = run(*data, *models[:2], "--out", tmp_path / "lm.tsv")
    assert "no --vectors: words that the masked LM has in several pieces stay" in without_vectors.stderr
    without_lm = run(*data, *models[2:], "--out", tmp_path / "vectors.tsv")
    assert "no --masked-lm: all words are replaced by their nearest vectors" in without_lm.stderr
    assert without_vectors.exit_code == without_lm.exit_code == 0


def test_vectors_alone_need_no_torch(args: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text('text,label\n"A calm, charming tale",1\nx,0\n', encoding="utf-8")
    script = f"import sys; sys.modules['torch'] = sys.modules['transformers'] = None; {ENTRY}"
    words = ["augment", "--data", rows, "--text", "text", "--label", "label", "--vectors", args[8]]
    words += ["--candidates", 1, "--probability", 1, "--out", tmp_path / "o.csv"]
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.csv").read_bytes().decode().splitlines() == [
        "text,label,origin,copy",
        '"A calm, charming tale",1,0,0',
        "x,0,1,0",
        '"A quiet, lovely tale",1,0,1',
    ]
    lm = subprocess.run(
        [sys.executable, "-c", script, *map(str, words), "--masked-lm", "m"], capture_output=True, text=True
    )
    assert (lm.returncode, lm.stderr.count("\n")) == (2, 2)  # what was read, then the error
    assert "install the extra: pip install 'hskcache[teacher]'" in lm.stderr


def test_bad_input_ends_in_one_line_before_anything_is_written(
    args: Any, refused: Any, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    data, out = args[:5], tmp_path / "o.tsv"
    lm, vectors = args[5:7], args[7:9]
    empty = tmp_path / "empty.tsv"
    empty.write_text("index\tsentence1\tsentence2\tlabel\n0\ta\t\tentailment\n", encoding="utf-8")
    broken = tmp_path / "v.txt"
    broken.write_text("a 1 2\nb 1\n", encoding="utf-8")
    assert "give at least one of them" in refused(*data, "--out", out)
    assert "are written as .tsv" in refused(*data, *vectors, "--out", tmp_path / "o.csv")
    assert "are written as .jsonl" in refused("augment", "--data", "hub:a:b", *vectors, "--out", out)
    assert re.search(r"empty.tsv line 2: the second text is empty", refused(
        "augment", "--data", empty, "--task", "rte", *vectors, "--out", out))  # fmt: skip
    assert "v.txt line 2: a word and 2 finite numbers" in refused(*data, "--vectors", broken, "--out", out)
    assert "lacks weights of a masked LM" in refused(*data, "--masked-lm", tiny_teacher_dir, "--out", out)
    assert "--probability nan is not a number" in refused(*data, *lm, "--probability", "nan", "--out", out)
    assert "is not a regular expression" in refused(*data, *lm, "--words", "(", "--out", out)
    assert "gone: No such file" in refused(*data, *lm, "--stop-words", tmp_path / "gone", "--out", out)
    assert "do you mean 'published'?" in refused(*data, *lm, "--stop-words", "publishd", "--out", out)
    assert {path.name for path in tmp_path.iterdir()} == {"empty.tsv", "v.txt"}
    out.write_text("mine")
    assert "is there already" in refused(*data, *vectors, "--out", out).splitlines()[-1]
    assert out.read_text() == "mine"


def check_rows_stay(run: Any, source: Path, vectors: Path, task: str) -> None:
    """Augment some rows: every one is in the output as it was, and what was replaced is read without a fault."""
    out = source.with_name("o.tsv")
    done = run("augment", "--data", source, "--task", task, "--vectors", vectors, "--copies", 3, "--out", out)
    assert done.exit_code == 0, done.stderr
    layout = Layout(task, None, None, None, None)
    before, after = layout.read(str(source)), layout.read(str(out))
    places = [line.rsplit("\t", 2)[1:] for line in out.read_text(encoding="utf-8").split("\n")[:-1]][-len(after) :]
    originals = [number for number, (_, copy) in enumerate(places) if copy == "0"]
    assert [after.texts[number] for number in originals] == before.texts
    assert (after.pairs is None) == (before.pairs is None)
    assert before.labels is not None
    assert after.labels is not None
    assert [int(before.labels[int(origin)]) for origin, _ in places] == after.labels.tolist()
    assert len(after) > 3 * len(before)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_of_every_form_stay_the_rows_they_are(form: Form, run: Any, tmp_path: Path) -> None:
    form.write(tmp_path)
    words = sorted(set(re.findall("[a-z]+", " ".join((*SUBJECTS, *GOOD, *BAD, *QUIRKS, *PLACES)).lower())))
    vectors = tmp_path / "v.txt"
    vectors.write_text("".join(f"{word} {number} {number**2 % 17}\n" for number, word in enumerate(words, start=1)))
    check_rows_stay(run, tmp_path / form.folder / "dev.tsv", vectors, form.task)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_real_rows_stay_the_rows_they_are(form: Form, run: Any, tmp_path: Path) -> None:
    source = real_file("HSKCACHE_GLUE", "glue", f"{form.folder}/dev.tsv")
    rows = tmp_path / "rows.tsv"
    rows.write_text(
        "".join(f"{line}\n" for line in source.read_text(encoding="utf-8").split("\n")[:120]), encoding="utf-8"
    )
    check_rows_stay(run, rows, real_file("HSKCACHE_VECTORS", "vectors", "glove.6B.50d.5k.txt"), form.task)


def test_the_defaults_of_the_command_are_those_of_the_room() -> None:
    """Written out in the command, whose help needs none of the room."""
    command = main.get_command(click.Context(main), "augment")
    assert command is not None
    options = {option.name: option for option in command.params}
    assert options["vectors_limit"].default == LIMIT
    pairs = options["pairs"]
    assert isinstance(pairs.type, click.Choice)
    assert tuple(pairs.type.choices) == get_args(Pairs)
    assert pairs.default == Chance(1, 0.5, 0).pairs
