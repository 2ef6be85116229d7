"""A teacher gets the inputs it takes, rows it cannot read are refused, and a tokenizer is saved without history."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.build.build import build
from hskcache.build.constants import extractor_for
from hskcache.build.job import Job, prepare_job
from hskcache.encoder import trained_length
from hskcache.errors import TeacherError
from hskcache.teacher.inputs import MAX_POSITIONS, fit_rows, most_tokens, save_tokenizer, takes_token_types
from hskcache.teacher.load import Teacher, as_teacher
from hskcache.text import Examples, TokenizedRows, load_tokenizer, tokenize

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def make(kind: str, **config: Any) -> PreTrainedModel:
    if kind == "DistilBert":
        config = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} | config
    else:
        config = SIZE | config
    model = getattr(transformers, f"{kind}ForSequenceClassification")(
        getattr(transformers, f"{kind}Config")(
            vocab_size=150, max_position_embeddings=config.pop("table", 40), **config
        )
    )
    return model.eval()


def rows_of(lengths: list[int], token: int = 7) -> TokenizedRows:
    ids = np.full(sum(lengths), token, np.int32)
    return TokenizedRows(ids, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(len(ids), np.uint8), frozenset())


def teacher_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Teacher:
    return as_teacher(model, tokenizer, "tiny", model.config.num_labels)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("Bert", {}, True),
        ("Electra", {}, True),
        ("Bert", {"type_vocab_size": 1}, False),
        ("Roberta", {"type_vocab_size": 1}, False),
        ("DistilBert", {}, False),
    ],
)
def test_only_models_with_two_types_take_types(kind: str, config: dict[str, Any], expected: bool) -> None:
    model = make(kind, **config)
    assert takes_token_types(model) is expected
    assert (fit_rows(model, rows_of([5, 3]), ("t", "d")).token_type_ids is not None) is expected


def test_a_distilbert_with_a_bert_tokenizer_stores_no_types_and_gets_none(
    pairs: Examples, tiny_tokenizer_dir: Path, spec_of: Any, tmp_path: Path
) -> None:
    teacher = teacher_of(make("DistilBert", table=64), load_tokenizer(tiny_tokenizer_dir))
    rows = tokenize(pairs, teacher.tokenizer, 48)
    assert rows.token_type_ids is not None
    job = prepare_job(teacher, pairs, rows, spec_of("1l_3t_0.5h"))
    inputs, _ = extractor_for(job).batch(np.arange(3))
    assert sorted(inputs) == ["attention_mask", "input_ids"]
    manifest = build(job, tmp_path / "c")
    assert not manifest.request.tokenizer.has_token_types
    assert "token_type_ids" not in manifest.shards["inputs"][0].arrays
    # Whoever tokenizes with the cache's own tokenizer gets what the rows hold.
    again = tokenize(pairs, load_tokenizer(tmp_path / "c" / "tokenizer"), 48)
    assert again.token_type_ids is None
    assert np.array_equal(again.input_ids, rows.input_ids)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("Bert", {}, 40),
        ("DistilBert", {}, 40),
        ("Electra", {}, 40),
        # Positions begin after the padding id.
        ("Roberta", {"pad_token_id": 1}, 38),
        ("XLMRoberta", {"pad_token_id": 3}, 36),
    ],
)
def test_rows_up_to_the_limit_run_and_one_token_more_is_refused(
    kind: str, config: dict[str, Any], expected: int
) -> None:
    model = make(kind, **config)
    assert most_tokens(model) == expected
    fit_rows(model, rows_of([expected]), ("t", "d"))
    assert torch.isfinite(model(input_ids=torch.full((1, expected), 7)).logits).all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, expected + 1), 7))
    with pytest.raises(TeacherError, match=rf"d\.tsv row 1, .* {expected + 1} tokens .*--max-length {expected}\b"):
        fit_rows(model, rows_of([5, expected + 1, 6]), ("t", "d.tsv"))


def test_a_model_without_a_table_reads_as_far_as_positions_are_stored() -> None:
    model = make("Bert")
    del model.bert.embeddings.position_embeddings
    assert most_tokens(model) == MAX_POSITIONS == np.iinfo(np.uint16).max + 1


def test_ids_and_types_outside_the_tables_are_refused_by_row() -> None:
    model = make("Bert")
    rows = rows_of([4, 3, 5])
    last = rows.input_ids.copy()
    last[7] = 150
    with pytest.raises(TeacherError, match=r"d row 2, counted from 0, has the token id 150 and t knows 150.*tokenizer"):
        fit_rows(model, dataclasses.replace(rows, input_ids=last), ("t", "d"))
    assert rows.token_type_ids is not None
    types = rows.token_type_ids.copy()
    types[3] = 2
    with pytest.raises(TeacherError, match=r"d row 0, counted from 0, has the token type 2 and t knows 2"):
        fit_rows(model, dataclasses.replace(rows, token_type_ids=types), ("t", "d"))


def test_a_saved_tokenizer_does_not_depend_on_what_it_did_or_where_it_was(tiny_tokenizer_dir: Path) -> None:
    fresh = save_tokenizer(load_tokenizer(tiny_tokenizer_dir), True)
    used = load_tokenizer(tiny_tokenizer_dir)
    used(["the film"] * 2, padding="max_length", truncation=True, max_length=9)
    assert save_tokenizer(used, True) == fresh
    # As transformers notes down where a tokenizer came from.
    fetched = load_tokenizer(tiny_tokenizer_dir)
    fetched.init_kwargs |= {"is_local": False, "local_files_only": False, "name_or_path": "hub/name"}
    assert save_tokenizer(fetched, True) == fresh
    assert save_tokenizer(load_tokenizer(tiny_tokenizer_dir), False).sha256 != fresh.sha256


def test_a_saved_tokenizer_reads_text_as_the_original(
    tiny_tokenizer_dir: Path, examples: Examples, tmp_path: Path
) -> None:
    for name, data in save_tokenizer(load_tokenizer(tiny_tokenizer_dir), True).files.items():
        (tmp_path / name).write_bytes(data)
    found, expected = (tokenize(examples, load_tokenizer(folder), 48) for folder in (tmp_path, tiny_tokenizer_dir))
    assert np.array_equal(found.input_ids, expected.input_ids)
    assert found.special_ids == expected.special_ids
    assert found.token_type_ids is not None


def test_a_table_of_angles_bounds_rows_as_one_of_positions_does() -> None:
    """RoFormer's rotary positions are looked up, and would end in an index error beyond."""
    model = make("RoFormer", table=12, embedding_size=16)
    assert most_tokens(model) == 12
    assert trained_length(model) is None
    assert len(model(torch.full((1, 12), 7)).logits) == 1
    with pytest.raises(TeacherError, match="has 13 tokens and t reads at most 12; build with --max-length 12"):
        fit_rows(model, rows_of([5, 13]), ("t", "d"))


def test_rows_longer_than_a_rotary_model_was_trained_on_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It reads them without an error; how well, nobody has tried."""
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    model = make("ModernBert", table=12, **ids)
    assert trained_length(model) == 12
    fit_rows(model, rows_of([5, 12]), ("t", "d"))
    assert capsys.readouterr().err == ""
    assert len(fit_rows(model, rows_of([5, 13]), ("t", "d"))) == 2
    told = "d has rows of up to 13 tokens and t was trained on at most 12; it reads them, how well is not known: "
    assert capsys.readouterr().err == f"{told}--max-length 12 keeps within\n"


def test_that_rows_are_longer_is_kept_with_what_computed_them(job: Job) -> None:
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    longest = int(job.rows.lengths.max())
    for trained, is_told in ((longest - 1, True), (longest, False)):
        teacher = dataclasses.replace(job.teacher, model=make("ModernBert", table=trained, **ids))
        told = dataclasses.replace(job, teacher=teacher).environment.get("rows")
        words = f"of up to {longest} tokens where the teacher was trained on at most {trained}"
        assert told == (words if is_told else None)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_where_a_table_bounds_rows_there_is_nothing_beyond_it_to_tell(kind: str) -> None:
    assert trained_length(make(kind)) is None
