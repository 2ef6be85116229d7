"""Rows without a gold label and rows that cannot be used, through every command that reads rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hskcache.cache import open_cache
from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

COLUMNS = "--text text --label label"


class Shell:
    """Commands in this process; ``{name}`` stands for a path."""

    def __init__(self, folder: Path, **paths: Path) -> None:
        self.folder, self.paths = folder, paths

    def __call__(self, command: str) -> tuple[int, str]:
        result = self.run(command)
        return result.exit_code, result.stderr

    def run(self, command: str) -> Result:
        program, *words = command.split()
        words = [word.format(d=self.folder, **self.paths) for word in words]
        return CliRunner().invoke({"hskcache": hskcache, "hsktrain": hsktrain}[program], words, catch_exceptions=False)

    def well(self, command: str) -> str:
        code, said = self(command)
        assert code == 0, said
        return said

    def refused(self, command: str) -> str:
        code, said = self(command)
        assert code == 2, said
        return said.splitlines()[-1]


def jsonl(path: Path, rows: list[tuple[str, Any]]) -> None:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))


@pytest.fixture
def shell(tmp_path: Path, tiny_teacher_dir: Path, tsv_file: Path) -> Shell:
    """Files ``odd``, with -1 and a row without a text; ``hidden``, with -1 alone; ``plain``, with neither."""
    rows = [line.split("\t") for line in tsv_file.read_text().splitlines()[1:25]]
    plain = [(text, int(label)) for text, label in rows]
    odd = [(text, -1 if number % 6 == 5 else label) for number, (text, label) in enumerate(plain)]
    jsonl(tmp_path / "plain.jsonl", plain)
    jsonl(tmp_path / "odd.jsonl", [*odd[:2], ("", 1), *odd[2:]])
    jsonl(tmp_path / "hidden.jsonl", [(text, -1) for text, _ in plain])
    (tmp_path / "clean.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in plain))
    named = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "named"))
    config = json.loads((named / "config.json").read_text())
    config |= {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    (named / "config.json").write_text(json.dumps(config))
    return Shell(tmp_path, t=tiny_teacher_dir, named=named)


def test_a_cache_keeps_rows_without_a_gold_label_and_says_which_were_left_out(shell: Shell) -> None:
    sizes = "--keep none --shard-rows 10 --max-length 48"
    build = f"hskcache build --teacher {{t}} --data {{d}}/odd.jsonl {COLUMNS} {sizes} --out {{d}}/c"
    assert "the text is empty; fill it in or remove the row, or give --bad-rows skip" in shell.refused(build)
    assert "4 of 24 rows have no gold label, the first in line 7; give --unlabelled skip" in shell.refused(
        f"{build} --bad-rows skip"
    )
    said = shell.well(f"{build} --bad-rows skip --unlabelled keep")
    assert "1 bad row is left out, the first in line 3: the text is empty" in said
    assert "4 of 24 rows have no gold label and are kept without one" in said
    cache = open_cache(shell.folder / "c")
    known = cache.manifest.request.data.provenance
    assert known is not None
    assert [(one.number, one.reason) for one in known.bad] == [(3, "the text is empty")]
    assert (known.num_bad, known.num_unlabelled, known.bad_rows, known.unlabelled) == (1, 4, "skip", "keep")
    assert [row for row in range(24) if cache.row(row)["label"] is None] == [5, 11, 17, 23]
    told = shell.run("hskcache info {d}/c").stdout
    assert "bad rows    1 left out; the first is line or row 3: the text is empty" in told
    assert "unlabelled  4 rows without a gold label kept" in told
    shell.well("hskcache verify {d}/c")
    # A repair reads the rows as the build did.
    next((shell.folder / "c/logits").glob("*.zarr.zip")).unlink()
    shell.well("hskcache repair {d}/c --teacher {t} --data {d}/odd.jsonl")
    shell.well("hskcache append {d}/c --teacher {t} --data {d}/plain.jsonl")
    shell.well("hskcache verify {d}/c")
    fit = "hsktrain fit --cache {d}/c --student {t} --recipe stark --set distillation.epochs=1 --device cpu --out {d}/s"
    said = shell.well(f"{fit} --eval-data {{d}}/odd.jsonl --bad-rows skip --unlabelled keep")
    assert "4 of 24 rows have no gold label and are left out" in said


def test_rows_without_a_gold_label_are_not_appended_where_all_have_one(shell: Shell) -> None:
    build = f"hskcache build --teacher {{t}} --data {{d}}/plain.jsonl {COLUMNS} --keep none --out {{d}}/c"
    shell.well(build)
    append = "hskcache append {d}/c --teacher {t} --data {d}/odd.jsonl --bad-rows skip"
    assert "some rows of" in shell.refused(f"{append} --unlabelled keep")
    assert "20 rows appended" in shell.well(f"{append} --unlabelled skip")


def test_a_column_without_any_gold_label_is_distilled_and_never_scored(shell: Shell) -> None:
    said = shell.well(f"hskcache build --teacher {{t}} --data {{d}}/hidden.jsonl {COLUMNS} --keep none --out {{d}}/c")
    assert "no row has a gold label in the column label; read without labels" in said
    assert open_cache(shell.folder / "c").manifest.fields["inputs"].has_labels is False
    needy = {
        "hsktrain evaluate --model {t} --data {d}/hidden.jsonl": "to evaluate on",
        "hsktrain finetune --model {t} --data {d}/hidden.jsonl --eval-data {d}/plain.jsonl --out {d}/f": "to learn",
        "hsktrain finetune --model {t} --data {d}/plain.jsonl --eval-data {d}/hidden.jsonl --out {d}/f": "to learn",
        "hsktrain create --prune {t} --heads 2 --data {d}/hidden.jsonl --out {d}/p": "which importance needs",
        "hskcache sparsify --teacher {t} --balance 1 --data {d}/hidden.jsonl --out {d}/z": "which the task loss needs",
        "hsktrain stark --teacher {t} --student {t} --data {d}/plain.jsonl --eval-data {d}/hidden.jsonl --out {d}/k": (
            "which scores need"
        ),
    }
    for command, purpose in needy.items():
        assert f"no row has a gold label in the column label {purpose}" in shell.refused(f"{command} {COLUMNS}")


def test_class_numbers_are_indices_of_a_model_that_names_its_classes(shell: Shell) -> None:
    """Under every name that the classes have, the score is the same."""
    evaluate = f"hsktrain evaluate --data {{d}}/plain.jsonl {COLUMNS} --device cpu --model"
    said = shell.well(f"{evaluate} {{named}}")
    assert "labels that are numbers taken for the classes NEGATIVE, POSITIVE, in order" in said
    assert "the classes NEGATIVE, POSITIVE are taken for no, yes" in shell.well(
        f"{evaluate} {{named}} --classes no,yes"
    )
    shell.well(f"{evaluate} {{t}} --classes no,yes")
    assert "in this order" in shell.refused(f"{evaluate} {{named}} --classes positive,negative")
    assert "names 3 classes and there are 2" in shell.refused(f"{evaluate} {{named}} --classes a,b,c")
    assert "give two classes or more, each once" in shell.refused(f"{evaluate} {{named}} --classes a,a")


def test_what_one_class_or_one_score_cannot_serve_is_said(shell: Shell) -> None:
    jsonl(shell.folder / "ones.jsonl", [("a film", 1), ("a plot", 1)])
    finetune = "hsktrain finetune --model {t} --device cpu --out {d}/f"
    files = f"--data {{d}}/ones.jsonl --eval-data {{d}}/ones.jsonl {COLUMNS}"
    assert "name the classes, at least two, with --classes" in shell.refused(f"{finetune} {files}")
    assert "there is nothing to learn from one class" in shell.refused(f"{finetune} {files} --classes 0,1")
    # To be scored on, one class is enough: the model counts two.
    shell.well(f"hsktrain evaluate --model {{t}} --data {{d}}/ones.jsonl {COLUMNS} --device cpu")
    task = "name: grade\ntext: text\nlabel: label\nproblem: regression\nmetrics: [pearson]\n"
    (shell.folder / "grade.yaml").write_text(task)
    scores = "--task {d}/grade.yaml --data {d}/plain.jsonl --eval-data {d}/ones.jsonl"
    assert "has the score 1, to which nothing correlates" in shell.refused(f"{finetune} {scores}")


def test_augmented_rows_are_those_that_stay(shell: Shell) -> None:
    (shell.folder / "vectors.txt").write_text("calm 1 0\nquiet 1 0.1\n")
    augment = f"hskcache augment --data {{d}}/odd.jsonl {COLUMNS} --vectors {{d}}/vectors.txt --copies 1"
    shell.well(f"{augment} --bad-rows skip --unlabelled keep --out {{d}}/more.jsonl")
    rows = [json.loads(line) for line in (shell.folder / "more.jsonl").read_text().splitlines()]
    own = [row for row in rows if row["copy"] == 0]
    assert (len(own), sum(row["label"] == -1 for row in own), all(row["text"] for row in own)) == (24, 4, True)
    shell.well(f"{augment} --bad-rows skip --unlabelled skip --out {{d}}/less.jsonl")
    rows = [json.loads(line) for line in (shell.folder / "less.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {0, 1}
