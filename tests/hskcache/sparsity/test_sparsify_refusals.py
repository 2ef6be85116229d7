"""Whatever is wrong with ``hskcache sparsify``, one line says so, exit code 2, and nothing is written."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import saved
from process import changed, contents, line_of, sparsify
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from hskcache.errors import CacheError
from hskcache.sparsity.artifact import load_scores, save_scores
from hskcache.sparsity.levels import Ranking
from hskcache.sparsity.run import check_out
from hskcache.sparsity.scores import UnitScores
from hskcache.store.files import sha256_hex


def test_what_is_missing_or_malformed_is_said_before_anything_is_loaded(args: Any, tmp_path: Path) -> None:
    nowhere = {"teacher": tmp_path / "none"}
    for changes, words in (
        ({"trial_student": None}, "give --trial-student DIR, or --balance 1"),
        ({"data": None}, "give --data FILE, or --scores"),
        ({"sparsity": "0,10,10"}, "10 comes after 10"),
        ({"sparsity": "0,100"}, "'100' is not a percentage"),
        ({"temperature": "nan"}, "--temperature nan is not a number"),
        ({"balance": "nan"}, "--balance nan is not a number"),
    ):
        assert words in line_of(sparsify(*changed(args, **nowhere, **changes)))
    assert "0<=x<=1" in sparsify(*changed(args, balance="2")).stderr
    assert "x>=0" in sparsify(*changed(args, seed="-1")).stderr
    assert not (tmp_path / "o").exists()


def test_students_that_do_not_belong_to_the_teacher_are_refused(args: Any, small_student: Any, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(small_student(), tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    bare = Path(shutil.copytree(small_student(), tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    other = Path(shutil.copytree(small_student(), tmp_path / "other"))
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"the": ', '"thy": '))
    for student, words in (
        (tmp_path / "none", "cannot load a trial student from"),
        (broken, "cannot load a trial student from"),
        (bare, "tokenizer"),
        (other, "knows other tokens than"),
        (small_student(kind=BertModel), "lacks weights of a classifier"),
        (small_student(("a", "b", "c")), "has 3 outputs and"),
        (small_student(("1", "0")), "has the classes 1, 0 and"),
    ):
        assert words in line_of(sparsify(*changed(args, trial_student=student))), student
    assert not (tmp_path / "o").exists()
    # Classes without names, or of a name that the task does not know, are taken in order.
    for names in (("LABEL_0", "LABEL_1"), ("NEGATIVE", "POSITIVE")):
        out = tmp_path / names[0]
        assert sparsify(*changed(args, trial_student=small_student(names), sparsity="0", out=out)).code == 0


def test_teachers_and_data_that_do_not_fit_are_refused(
    args: Any, tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    sizes = {"embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AlbertConfig(vocab_size=150, intermediate_size=16, **sizes)
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    albert = saved(lambda: AlbertForSequenceClassification(config), tokenizer, tmp_path / "albert")
    bad = tmp_path / "bad.tsv"
    bad.write_text(tsv_file.read_text().replace("\t1\n", "\t7\n", 1))
    for changes, words in (
        ({"teacher": albert}, "Albert"),
        ({"data": tmp_path / "none.tsv"}, "none.tsv: No such file"),
        ({"data": bad}, "label '7' is not one of 0, 1"),
        ({"task": "mnli", "text": "sentence", "text-pair": "", "label": "label"}, "mnli has 3"),
    ):
        assert words in line_of(sparsify(*changed(args, **changes))), words
    assert not (tmp_path / "o").exists()


def test_folders_of_something_else_are_left_alone(
    whole: Path, args: Any, tiny_teacher_dir: Path, small_student: Any, tmp_path: Path
) -> None:
    out, mine = Path(shutil.copytree(whole, tmp_path / "o")), tmp_path / "mine"
    (mine / "s50").mkdir(parents=True)
    (mine / "s50" / "notes.txt").write_text("notes")
    (tmp_path / "file").write_text("notes")
    before = contents(tmp_path / "o")
    for changes, words in (
        ({"balance": 0.25}, "s0 is there with balance 0.5 and this command gives 0.25"),
        ({"batch_size": 7}, "holds scores with batch_size 32 and these would have 7"),
        ({"max_length": 16}, "holds scores with max_length 64 and these would have 16"),
        ({"method": "magnitude"}, "s0 is there with method knowledge and this command gives magnitude"),
        ({"teacher": small_student()}, "s0 is there with teacher "),
        ({"out": mine}, f"{mine / 's50'} is there and holds no sparsity.json"),
        ({"out": tiny_teacher_dir}, "holds config.json and no sparse teacher"),
        ({"out": tmp_path / "file"}, "file"),
        ({"teacher": small_student(), "out": tmp_path / "new", "scores": out}, "holds scores of another teacher"),
        ({"out": tmp_path / "new", "scores": tmp_path / "none"}, "none holds no scores"),
        ({"out": tmp_path / "new", "scores": mine}, "mine holds no scores"),
    ):
        assert words in line_of(sparsify(*changed(args, **changes))), words
    assert contents(out) == before
    assert contents(mine) == {"s50/notes.txt": sha256_hex(b"notes")}
    assert not (tmp_path / "new").exists()
    # Levels whose scores changed under them are not mixed with new ones.
    scores, info = load_scores(out)
    assert scores.expressive is not None
    save_scores(out, UnitScores(scores.expressive, scores.expressive), info)
    assert "s0 is there with scores_sha256" in line_of(sparsify(*changed(args, sparsity="30")))
    assert not (out / "s30").exists()


def test_a_level_that_lost_its_weights_is_not_taken_for_one(whole: Path, args: Any, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "o"))
    (out / "s10" / "model.safetensors").unlink()
    before = contents(out)
    # Levels beside it are refused, too: nobody could tell which are whole.
    for levels in ("0,10", "0,30"):
        words = f"{out / 's10'} lacks its weights, *.safetensors; delete it and run the same command again"
        assert line_of(sparsify(*changed(args, sparsity=levels))) == f"error: {words}"
    assert contents(out) == before
    shutil.rmtree(out / "s10")
    assert sparsify(*args).code == 0
    assert contents(out) == contents(whole)


def test_scores_that_tell_nothing_make_no_sparse_teacher(args: Any, tmp_path: Path) -> None:
    """So low a temperature leaves the softmax of a teacher no slope; the other half of the scores is there."""
    line = line_of(sparsify(*changed(args, temperature="1e-30")))
    assert "a balance of 0.5 counts student-friendly scores, and those of all heads are 0; " in line
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"scores.safetensors", "scores.json"}
    done = sparsify(*changed(args, temperature="1e-30", balance=1, sparsity="50"))
    assert (done.code, (tmp_path / "o" / "s50").is_dir()) == (0, True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(teacher_of: Any, tmp_path: Path) -> None:
    """Ten sparse teachers of 4 TB each, of which there are the shapes alone."""
    teacher = teacher_of("bert")
    with torch.device("meta"):
        huge = BertForSequenceClassification(BertConfig(vocab_size=10**9, hidden_size=1000, num_attention_heads=10))
    with pytest.raises(CacheError, match=r"10 sparse teachers .*40\.\d\d TB more and .* free.*--sparsity"):
        check_out(replace(teacher, model=huge), Ranking("magnitude"), range(0, 100, 10), tmp_path / "o")
    assert not (tmp_path / "o").exists()
