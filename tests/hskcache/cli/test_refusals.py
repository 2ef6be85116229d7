"""Whatever is wrong with a command, one line says what was given, what was expected and what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, DebertaConfig, DebertaForSequenceClassification

PARTS = ("teacher", "data", "device", "out", "task")


@pytest.fixture
def refused_build(refused: Any, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> Any:
    """Build with some arguments changed; the one line it is refused with."""

    def read(*args: object, **changes: object) -> str:
        given = {"teacher": tiny_teacher_dir, "data": tsv_file, "device": "cpu", "out": tmp_path / "c", "task": "sst2"}
        return refused("build", *(part for name in PARTS for part in (f"--{name}", (given | changes)[name])), *args)

    return read


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--keep", "9l_"), ("'9l_'", "1l_10t_0.1h")),
        (("--keep", "9l"), ("9 layers", "student of 4 layers has 5", "at most 5")),
        (("--keep", "0h"), ("share of columns is 0", "above 0")),
        (("--keep", "1.5h"), ("share of columns is 1.5", "at most 1")),
        (("--keep", "0t"), ("0 tokens",)),
        (("--depth-target", "5"), ("teacher layer 5", "has 4 layers", "at most 4")),
        (("--score", "all", "--keep", "3t"), ("--score all", "3 tokens", "leave one")),
        (("--width", "all", "--keep", "0.5h"), ("--width all", "0.5", "leave one")),
        (("--keep", "none", "--encoding", "int4"), ("--encoding", "none are")),
        (("--spec", "missing.yaml"), ("--spec missing.yaml", "No such file")),
        (("--max-length", "4", "--text-pair", "label", "--label", ""), ("4 tokens", "at least 5")),
    ],
)
def test_a_spec_that_cannot_be(args: tuple[str, ...], words: tuple[str, ...], refused_build: Any) -> None:
    line = refused_build(*args)
    assert [word for word in words if word not in line] == [], line


def test_more_tokens_than_a_row_has_are_no_error(run: Any, sources: Any, tmp_path: Path) -> None:
    args = ("build", *sources, "--task", "sst2", "--keep", "1l_500t_0.1h", "--out", tmp_path / "c")
    assert run(*args).exit_code == 0


def test_devices_that_are_not_there(refused_build: Any) -> None:
    assert "--device 'tpu'" in refused_build(device="tpu")
    assert "--device cuda:99" in refused_build(device="cuda:99")


def test_one_bad_line_of_the_data_is_named(refused_build: Any, tsv_file: Path, tmp_path: Path) -> None:
    lines = tsv_file.read_text().splitlines()
    lines[40] = lines[40].rpartition("\t")[0] + "\t2"
    file = tmp_path / "bad.tsv"
    file.write_text("\n".join(lines) + "\n")
    assert refused_build(data=file).startswith(f"{file} line 41: label '2' is not one of 0, 1")
    assert str(tmp_path / "none.tsv") in refused_build(data=tmp_path / "none.tsv")
    assert not (tmp_path / "c").exists()


def test_rows_longer_than_the_teacher_reads_name_the_length_to_give(
    refused_build: Any, run: Any, sources: Any, tmp_path: Path
) -> None:
    file = tmp_path / "long.tsv"
    file.write_text("sentence\tlabel\nthe film\t0\n" + "the film " * 60 + "\t1\n")
    line = refused_build("--max-length", 128, data=file)
    assert "row 1, counted from 0, has 122 tokens" in line
    assert line.endswith("build with --max-length 64, or with --stride, which reads windows")
    args = ("build", *sources, "--data", file, "--task", "sst2", "--max-length", 64, "--out", tmp_path / "c")
    assert run(*args).exit_code == 0
    # Pairs are not read in windows.
    file.write_text("sentence\tother\tlabel\nthe film\tit\t0\n" + "the film " * 60 + "\tit\t1\n")
    names = ("--text", "sentence", "--text-pair", "other", "--label", "label")
    result = run("build", *sources, "--data", file, *names, "--max-length", 128, "--out", tmp_path / "p")
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith("build with --max-length 64")


def test_teachers_that_cannot_teach(refused_build: Any, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    headless = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "headless"))
    BertModel(BertConfig.from_pretrained(headless)).save_pretrained(headless)
    assert "lacks weights of a classifier" in refused_build(teacher=headless)
    deberta = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "deberta"))
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    DebertaForSequenceClassification(DebertaConfig(vocab_size=150, **size)).save_pretrained(deberta)
    assert "computes attention in its own code" in refused_build("--attention", "full", teacher=deberta)
    assert str(tmp_path / "none") in refused_build(teacher=tmp_path / "none")


def test_a_teacher_of_other_classes_is_refused(refused_build: Any) -> None:
    columns = ("--text", "sentence", "--text-pair", "", "--label", "label")
    line = refused_build(*columns, task="mnli")
    assert "2 classes" in line
    assert "mnli has 3" in line
    assert "2 classes and stsb has scores" in refused_build(*columns, task="stsb")


def test_a_foreign_folder_is_left_alone(refused_build: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("notes")
    assert "not a cache's" in refused_build(out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_tokenizer_that_changed_since_the_build_began_is_named(
    cache: Path, tiny_teacher_dir: Path, build_args: Any, refused: Any, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(cache, tmp_path / "unfinished"))
    (out / "building.json").write_text(json.dumps(json.loads((out / "manifest.json").read_text())["request"]))
    (out / "manifest.json").unlink()
    teacher = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "teacher"))
    text = (teacher / "tokenizer.json").read_text()
    (teacher / "tokenizer.json").write_text(text.replace('"strip_accents": null', '"strip_accents": true'))
    args = [teacher if arg == tiny_teacher_dir else arg for arg in build_args]
    line = refused(*args, "--out", out)
    assert "tokenizer.sha256" in line
    assert "another folder" in line


@pytest.mark.parametrize("command", ["info", "view", "verify"])
def test_what_is_no_cache_is_refused(command: str, refused: Any, tmp_path: Path) -> None:
    assert "does not exist" in refused(command, tmp_path / "none")
    assert "not a cache" in refused(command, tmp_path)


def test_a_row_that_is_not_there_is_refused(cache: Path, refused: Any) -> None:
    assert "has 96" in refused("view", cache, 96)


@pytest.mark.parametrize("command", ["verify", "repair", "export", "pack", "append"])
def test_a_url_where_a_folder_is_needed_is_told_in_one_line(run: Any, command: str) -> None:
    """A path of it, s3:/team, would be looked for in vain."""
    result = run(command, "s3://user:secret@team/sst2.hsk", *(["out"] if command in {"export", "pack"} else []))
    assert result.exit_code == 2
    assert "CACHE is a URL, and this command needs a folder; fetch it first with hskcache pull URL" in result.stderr
    assert "secret" not in result.stderr
