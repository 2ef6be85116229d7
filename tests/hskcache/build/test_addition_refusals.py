"""No teacher is added that cannot read the rows of the cache, or answers for other classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from models import saved
from stored import both_manifests, shard_file
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)
from twins import make

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.build import build, finished
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError, SpecError, TeacherError
from hskcache.spec import Attention
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples

KEEP = {"keep": "1l_4t_0.25h", "encoding": "int8"}


def test_another_vocabulary_is_refused_with_the_first_token_that_differs(
    cache: Cache, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "swapped"))
    path = folder / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    ids = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    one, two = f'"film": {ids["film"]}', f'"movie": {ids["movie"]}'
    assert one in text
    path.write_text(text.replace(one, f'"film": {ids["movie"]}').replace(two, f'"movie": {ids["film"]}'))
    with pytest.raises(
        MismatchError, match=rf"token 'film' has id {ids['movie']} there and {ids['film']} here; give a teacher"
    ):
        prepare_addition(load_teacher(str(folder)), cache, "logits", "t2")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0", "1", "2"], "has 3 outputs and the cache has 2"),
        (["0"], "has 1 output and the cache has 2"),
        (["1", "0"], "classes 1, 0 and the cache has 0, 1"),
    ],
)
def test_other_classes_are_refused(
    cache: Cache, tiny_teacher_dir: Path, tmp_path: Path, names: list[str], words: str
) -> None:
    def change(config: dict[str, Any]) -> None:
        config["problem_type"] = None
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: index for index, name in enumerate(names)}

    with pytest.raises(MismatchError, match=words):
        prepare_addition(make(change, tiny_teacher_dir, tmp_path / "t"), cache, "logits", "t2")


def test_a_teacher_with_fewer_positions_than_the_rows_need_is_refused(
    cache: Cache, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        config["max_position_embeddings"] = 8

    with pytest.raises(TeacherError, match="reads at most 8; build with --max-length 8"):
        prepare_addition(make(change, tiny_teacher_dir, tmp_path / "t"), cache, "logits", "t2")


def test_token_types_that_were_not_stored_are_missed_and_those_not_read_are_left_out(
    cache: Cache, job_of: Any, pairs: Examples, teacher: Teacher, tiny_tokenizer_dir: Path, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    folder = saved(lambda: DistilBertForSequenceClassification(config), tokenizer, tmp_path / "distil")
    distil = load_teacher(str(folder))
    # Nothing of DistilBERT reads token types: its field stands beside BERT's.
    add_field(prepare_addition(distil, cache, "logits", "distil"))
    assert open_cache(cache.root).row(0)["added"]["distil"].shape == (2,)
    build(job_of("none", rows=pairs, by=distil), tmp_path / "untyped")
    with pytest.raises(MismatchError, match=r"by token types, which the rows of .* were stored without; build a cache"):
        prepare_addition(teacher, open_cache(tmp_path / "untyped"), "logits", "t2")


@pytest.mark.parametrize("kind", ["logits", "hidden", "attention"])
def test_what_is_kept_is_of_the_kind_and_of_no_other(cache: Cache, other: Teacher, job_of: Any, kind: Any) -> None:
    both = job_of(**KEEP).spec.model_copy(update={"attention": Attention()})
    with pytest.raises(SpecError, match="are to be kept too; keep"):
        prepare_addition(other, cache, kind, "x", both)
    if kind != "logits":
        with pytest.raises(SpecError, match=f"a field of {kind} .* is to be added, but none are kept"):
            prepare_addition(other, cache, kind, "x")


def test_other_rules_of_a_tokenizer_with_the_same_pieces_are_told(
    cache: Cache, tiny_teacher_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "cased"))
    path = folder / "tokenizer.json"
    rules = json.loads(path.read_text(encoding="utf-8"))
    rules["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(rules), encoding="utf-8")
    prepare_addition(load_teacher(str(folder)), cache, "logits", "cased")
    assert "has another normalizer than that of the cache" in " ".join(capsys.readouterr().err.split())


def test_a_manifest_that_was_edited_is_not_signed_anew_by_any_build(cache: Cache, other: Teacher, job_of: Any) -> None:
    add_field(prepare_addition(other, cache, "logits", "t2"))
    addition = prepare_addition(other, open_cache(cache.root), "logits", "t2")
    path = cache.root / "manifest.json"
    both_manifests(cache.root, path.read_text().replace(other.info.weights_sha256, "a" * 64).encode())
    shard_file(cache.root, "logits", 0).unlink()
    edited = path.read_bytes()
    for work in (
        lambda: build(job_of("none"), cache.root),
        lambda: finished(job_of("none"), cache.root),
        lambda: add_field(addition),
    ):
        with pytest.raises(DamageError, match="was edited"):
            work()
    assert path.read_bytes() == edited
