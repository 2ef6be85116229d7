"""Views of next tokens: fewer positions as a build stores them, and fewer of the likeliest tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commanded import parsed, run
from folders import contents
from language_models import language_model

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from hskcache.store.fields import VocabularyField
from trainer.loading import KnowledgeLoader

TEXTS = [f"Text {one} says {'very ' * (one % 5)}little of {one * 37}." for one in range(14)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("teacher") / "llama", vocab_size=70_000, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def built(teacher: Path, corpus: Path, out: Path, *options: object) -> Cache:
    given = ("--teacher", teacher, "--corpus", corpus, "--max-length", 32, "--device", "cpu", "--shard-rows", 6)
    result = run("build", *given, *options, "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


@pytest.fixture(scope="module")
def cache(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    given = ("--vocabulary", "top:12", "--keep", "1l_0.5t", "--student-layers", 2, "--score", "entropy")
    return built(teacher, corpus, tmp_path_factory.mktemp("cache") / "c", *given)


@pytest.fixture(scope="module")
def whole(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return built(teacher, corpus, tmp_path_factory.mktemp("whole") / "c", "--vocabulary", "sampled:7")


def rows(cache: Cache) -> list[dict[str, Any]]:
    return [cache.row(row)["vocabulary"] for row in range(cache.num_rows)]


@pytest.mark.parametrize("share", ["0.1t", "0.25t", "1t", "0.5t"])
def test_fewer_positions_are_those_that_a_build_writes(
    share: str, cache: Cache, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    given = ("--vocabulary", "top:12", "--keep", f"1l_{share}", "--student-layers", 2, "--score", "entropy")
    narrow = built(teacher, corpus, tmp_path / "narrow", *given)
    assert run("extract", cache.root, "--view", share, "--out", tmp_path / "seen").exit_code == 0
    assert contents(tmp_path / "seen") == contents(tmp_path / "narrow")
    assert cache.view(share).manifest.request == narrow.manifest.request
    assert f"{share.removesuffix('t')} " in run("info", cache.root, "--view", share).stdout


@pytest.mark.parametrize("score", ["random", "left", "last"])
def test_all_that_is_stored_is_ranked_anew(
    score: str, whole: Cache, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    given = ("--vocabulary", "sampled:7", "--keep", "0.2t", "--score", score)
    built(teacher, corpus, tmp_path / "narrow", *given)
    assert run("extract", whole.root, "--view", f"0.2t,score={score}", "--out", tmp_path / "seen").exit_code == 0
    assert contents(tmp_path / "seen") == contents(tmp_path / "narrow")


def test_fewer_likeliest_tokens_have_their_p_and_the_rest_that_of_all_others(cache: Cache) -> None:
    seen = cache.view("top=4")
    field = seen.fields["vocabulary"]
    assert isinstance(field, VocabularyField)
    assert (field.count, field.num_ranged) == (4, 12)
    for ours, theirs in zip(rows(seen), rows(cache), strict=True):
        np.testing.assert_array_equal(ours["ids"], theirs["ids"][:, :4])
        np.testing.assert_allclose(ours["logp"], theirs["logp"][:, :4], rtol=0, atol=2e-3)
        rest = np.exp(theirs["log_tail"].astype(np.float64)) + np.exp(theirs["logp"][:, 4:]).sum(1)
        np.testing.assert_allclose(np.exp(ours["log_tail"].astype(np.float64)), rest, rtol=2e-3)
        np.testing.assert_allclose(np.exp(ours["logp"]).sum(1) + np.exp(ours["log_tail"].astype(float)), 1, atol=1e-9)
        np.testing.assert_array_equal(ours["positions"], theirs["positions"])
    again = seen.view("top=2")
    assert again.fields["vocabulary"].num_ranged == 12  # type: ignore[attr-defined]
    np.testing.assert_array_equal(rows(again)[3]["ids"], rows(cache)[3]["ids"][:, :2])


def test_a_cache_of_fewer_tokens_is_verified_audited_and_written_to_hdf5(
    cache: Cache, teacher: Path, tmp_path: Path
) -> None:
    out = tmp_path / "few"
    assert run("extract", cache.root, "--view", "0.3t,top=4", "--out", out).exit_code == 0
    assert parsed("verify", out, "--deep")["ok"]
    report = parsed("audit", out, "--teacher", teacher, "--device", "cpu", "--rows", 9)
    assert report["ok"]
    (layer,) = (one for one in report["layers"] if one["field"] == "vocabulary")
    assert layer["same_positions"] == layer["same_first"] == 1
    assert run("export", out, tmp_path / "few.h5").exit_code == 0
    assert run("import", tmp_path / "few.h5", tmp_path / "back").exit_code == 0
    assert open_cache(tmp_path / "back").fields == open_cache(out).fields
    np.testing.assert_array_equal(rows(open_cache(tmp_path / "back"))[2]["ids"], rows(open_cache(out))[2]["ids"])


def test_the_loader_sees_what_a_view_has(cache: Cache) -> None:
    seen = cache.view("0.25t,top=4,fields=vocabulary")
    stored = rows(seen)
    for batch in KnowledgeLoader(seen, batch_size=5, seed=0):
        target = batch.targets["vocabulary"]
        expected = [stored[row] for row in batch.row_ids]
        length = batch.inputs["input_ids"].shape[1]
        places = [place * length + at for place, one in enumerate(expected) for at in one["positions"].tolist()]
        assert target.index_T.tolist() == places
        assert batch.totals["vocabulary"] == len(places) < batch.num_answers
        logp = torch.from_numpy(np.concatenate([one["logp"] for one in expected])).float()
        torch.testing.assert_close(target.logp_TK, logp, rtol=1e-4, atol=1e-5)
        assert target.ids_TK.tolist() == np.concatenate([one["ids"] for one in expected]).tolist()


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        ("0.6t", "the share 0.6 of the positions is asked for, and 0.5 is stored; ask for at most 0.5t"),
        ("3t", "3 positions are asked for, and the share 0.5 of the positions is stored, of short rows fewer"),
        ("top=13", "the 13 likeliest tokens are asked for, and 12 are stored; ask for at most 12"),
        ("0.1t,score=left", "positions are to be chosen by left, and not every position is stored"),
        ("0.1t,score=cls", "--score cls ranks no positions of next tokens"),
    ],
)
def test_what_is_not_stored_of_next_tokens_is_refused(view: str, reason: str, cache: Cache) -> None:
    with pytest.raises((MismatchError, SpecError), match=reason):
        cache.view(f"{view},fields=vocabulary")


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        ("0.1t", "next tokens are stored at every position, in the order of the row, so nothing tells which are best"),
        ("top=4", "the 4 likeliest tokens are asked for, and 7 draws a position are stored, and the first of draws"),
    ],
)
def test_what_nothing_ranks_is_refused(view: str, reason: str, whole: Cache) -> None:
    with pytest.raises(MismatchError, match=reason):
        whole.view(view)


def test_a_share_is_seen_of_a_number_that_is_never_less(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", "top:4", "--score", "loss", "--keep")
    many = built(teacher, corpus, tmp_path / "many", *given, "8t")
    few = built(teacher, corpus, tmp_path / "few", *given, "0.2t")
    assert [one["positions"].tolist() for one in rows(many.view("0.2t"))] == [
        one["positions"].tolist() for one in rows(few)
    ]
    with pytest.raises(MismatchError, match=r"the share 0.4 of the positions is asked for, which are up to 12, and 8"):
        many.view("0.4t")
