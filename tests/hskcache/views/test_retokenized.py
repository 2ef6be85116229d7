"""Texts that a cache keeps, and its rows in the tokens of another tokenizer."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bytewise import byte_tokenizer
from commanded import parsed, refused, run
from transformers import AutoTokenizer

from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.move.card import card
from hskcache.store.fields import EmbeddingField, HiddenField, InputsField
from hskcache.store.texts import packed_texts, unpacked_texts
from hskcache.verify import verify
from hskcache.views.retokenized import of_rows, retokenized

TEXTS = ["the film is warm", "é ü 漢字 🙂", "no", "its plot is a waste of time, and long", "the cast is dull"]
KEEP = ("--keep", "1l_3t", "--student-layers", "2", "--shard-rows", "3", "--max-length", "12")

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(TEXTS, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def build(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A cache of single texts or pairs, by the command."""
    folder = tmp_path_factory.mktemp("caches")

    def make(name: str, *flags: object, pairs: bool = False) -> Path:
        data = folder / f"{'pairs' if pairs else 'texts'}.tsv"
        seconds = [*TEXTS[1:], TEXTS[0]]
        lines = [f"{text}\t{second}\t{row % 2}" for row, (text, second) in enumerate(zip(TEXTS, seconds, strict=True))]
        data.write_text("\n".join(["text\tother\tlabel", *lines]) + "\n", encoding="utf-8")
        columns = ("--text", "text", "--label", "label", *(("--text-pair", "other") if pairs else ()))
        out = folder / name
        words = ("--teacher", tiny_teacher_dir, "--data", data, *columns, *KEEP, *flags, "--out", out)
        assert run("build", *words).exit_code == 0
        return out

    return make


@pytest.fixture(scope="module")
def kept(build: Build) -> Path:
    return build("kept", "--keep-text")


@pytest.fixture(scope="module")
def pairs(build: Build) -> Path:
    return build("pairs", "--keep-text", pairs=True)


def in_tokens(cache: Cache, tokenizer: Path) -> Cache:
    return Cache(*retokenized(cache.manifest, cache.shelf, str(tokenizer)))


@pytest.mark.parametrize("seconds", [None, TEXTS[::-1]])
def test_texts_come_back_from_their_bytes(seconds: list[str] | None) -> None:
    assert unpacked_texts(packed_texts(TEXTS, seconds)) == (TEXTS, seconds)
    assert unpacked_texts(packed_texts([], None)) == ([], None)
    arrays = packed_texts(["é"], None) | {"text": np.array([0xC3, 0x28], np.uint8)}
    with pytest.raises(DamageError, match="no text"):
        unpacked_texts(arrays)


def test_a_cache_keeps_the_texts_where_it_is_asked_to(kept: Path, pairs: Path, build: Build, tmp_path: Path) -> None:
    cache, plain = open_cache(kept), open_cache(build("plain"))
    assert [cache.row(row)["texts"] for row in range(5)] == [[text] for text in TEXTS]
    assert open_cache(pairs).row(4)["texts"] == [TEXTS[4], TEXTS[0]]
    assert "texts" not in plain.row(0)
    assert verify(kept, deep=True).ok
    # All else is what it is without them.
    for name in ("logits", "hidden"):
        assert [one.sha256 for one in cache.manifest.shards[name]] == [
            one.sha256 for one in plain.manifest.shards[name]
        ]
    assert cache.id != plain.id
    assert b"It keeps the texts as they are" in card(cache.manifest, "file:///x")
    assert b"keeps the texts" not in card(plain.manifest, "file:///x")
    assert "texts" in run("info", kept).stdout
    assert run("export", kept, tmp_path / "c.h5").exit_code == 0
    assert run("import", tmp_path / "c.h5", tmp_path / "c").exit_code == 0
    assert open_cache(tmp_path / "c").id == cache.id
    assert run("extract", kept, "--view", "rows=4", "--out", tmp_path / "first").exit_code == 0
    assert open_cache(tmp_path / "first").row(3)["texts"] == [TEXTS[3]]


@pytest.mark.parametrize("name", ["kept", "pairs"])
def test_rows_are_those_that_the_other_tokenizer_makes(name: str, other: Path, request: pytest.FixtureRequest) -> None:
    cache = open_cache(request.getfixturevalue(name))
    seen, tokenizer = in_tokens(cache, other), AutoTokenizer.from_pretrained(other)
    inputs = seen.fields["inputs"]
    assert isinstance(inputs, InputsField)
    assert (inputs.has_token_types, inputs.text, list(seen.fields)) == (False, None, ["inputs", "logits"])
    seconds = [*TEXTS[1:], TEXTS[0]] if name == "pairs" else None
    expected = tokenizer(TEXTS, seconds, truncation="longest_first", max_length=12)["input_ids"]
    assert [seen.row(row)["input_ids"].tolist() for row in range(5)] == expected
    assert any(len(ids) == 12 for ids in expected)
    assert [seen.row(row)["label"] for row in range(5)] == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(seen.logits(), cache.logits())
    # Sizes that are told beforehand are bounds of what is read.
    for shard, record in enumerate(seen.manifest.shards["inputs"]):
        assert record.arrays["input_ids"].shape[0] >= len(seen.read("inputs", shard)["input_ids"])
    assert seen.read("inputs", 0, ["labels"]).keys() == {"labels"}
    assert seen.id not in {cache.id, in_tokens(cache.view(rows=3), other).id}
    assert seen.id == in_tokens(cache, other).id


def test_the_caches_own_tokenizer_changes_nothing(kept: Path, tiny_teacher_dir: Path) -> None:
    cache = open_cache(kept)
    assert in_tokens(cache, tiny_teacher_dir).manifest is cache.manifest


def test_a_cache_without_texts_says_what_to_build(build: Build, other: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"keeps .* its teacher and no text .* build it with --keep-text"):
        in_tokens(open_cache(build("plain")), other)
    (tmp_path / "corpus.txt").write_text("a film\n")
    line = refused(
        "build", "--teacher", other, "--corpus", tmp_path / "corpus.txt", "--keep-text", "--out", tmp_path / "c"
    )
    assert "--keep-text keeps the texts of --data" in line


def test_rows_that_are_appended_keep_their_texts_as_the_others_do(
    kept: Path, tiny_teacher_dir: Path, other: Path, tmp_path: Path
) -> None:
    root, more = Path(shutil.copytree(kept, tmp_path / "c")), tmp_path / "more.tsv"
    more.write_text("text\tother\tlabel\na new film\tx\t1\n")
    assert parsed("append", root, "--teacher", tiny_teacher_dir, "--data", more)["num_rows"] == 6
    grown = open_cache(root)
    assert grown.row(5)["texts"] == ["a new film"]
    assert (
        in_tokens(grown, other).row(5)["input_ids"].tolist()
        == AutoTokenizer.from_pretrained(other)("a new film")["input_ids"]
    )


def test_fields_of_whole_rows_are_those_without_positions() -> None:
    embedding = EmbeddingField(width=4, num_dims=4, pooling="mean", is_normalized=True, encoding="int8")
    assert of_rows(embedding)
    hidden = open_cache(Path(__file__).parents[2] / "golden" / "tiny-2.hsk").fields["hidden"]
    assert isinstance(hidden, HiddenField)
    assert not of_rows(hidden)
