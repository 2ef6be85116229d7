"""Rows that are longer than they may be: every token that is lost is counted, and one line says what keeps them."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from hskcache.cut import NOTHING, Cut, Reach, tell_cut
from hskcache.text import Examples, load_tokenizer, tokenize
from hskcache.text.tokenize import BATCH_ROWS

WORDS = ("the", "film", "is", "dull", "zzz", "charming", "?")
LONGEST = "the longest has 70 and t reads at most 48"
POSTS: dict[str, Callable[[int, int], object]] = {
    "template": lambda sep, cls: processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    ),
    "roberta": lambda sep, cls: processors.RobertaProcessing(("[SEP]", sep), ("[CLS]", cls)),
    "none": lambda _sep, _cls: None,
}


def examples(texts: list[str], pairs: list[str] | None = None) -> Examples:
    return Examples(texts, pairs, None, (), "classification", "a.tsv", None, "")


@pytest.fixture
def tokenizer(tiny_tokenizer_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_tokenizer_dir)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("paired", [False, True])
def test_what_is_cut_is_what_the_tokenizer_gives_without_an_end(
    tokenizer: PreTrainedTokenizerBase, paired: bool, post: str, side: str
) -> None:
    draw = random.Random(7)
    texts, seconds = ([" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(60)] for _ in range(2))
    made = POSTS[post](tokenizer.sep_token_id, tokenizer.cls_token_id)
    if made is not None:
        tokenizer.backend_tokenizer.post_processor = made
    tokenizer.truncation_side = side
    pairs = seconds if paired else None
    whole = [len(ids) for ids in tokenizer(texts, pairs)["input_ids"]]
    for max_length in (8, 13, 24):
        lost = [length - max_length for length in whole if length > max_length]
        expected = Cut(len(lost), sum(lost), sum(lost) + max_length * len(lost), max(whole))
        assert tokenize(examples(texts, pairs), tokenizer, max_length).cut == expected
    assert tokenize(examples(texts, pairs), tokenizer, max(whole)).cut == NOTHING


def test_rows_of_all_batches_count(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = ["the"] * (BATCH_ROWS - 1) + ["the film is"] + ["the"] * (BATCH_ROWS - 1) + ["the film is dull"]
    assert tokenize(examples(texts), tokenizer, 4).cut == Cut(2, 3, 11, 6)


@pytest.mark.parametrize(
    ("cut", "reach", "line"),
    [
        (
            Cut(40, 51, 100, 256),
            Reach(128, 512, "t"),
            "40 of 40 rows lost 51 % of their tokens; --max-length 256 keeps all",
        ),
        (
            Cut(40, 51, 100, 256),
            Reach(128, None, "t"),
            "40 of 40 rows lost 51 % of their tokens; --max-length 256 keeps all",
        ),
        (
            Cut(1, 1, 130, 70),
            Reach(32, 48, "t"),
            f"1 of 40 rows lost less than 1 % of its tokens; {LONGEST}: --max-length 48 keeps the most",
        ),
        (
            Cut(2, 100, 1000, 70),
            Reach(48, 48, "t"),
            f"2 of 40 rows lost 10 % of their tokens; {LONGEST}",
        ),
    ],
)
def test_one_line_tells_what_keeps_them(cut: Cut, reach: Reach, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell_cut(cut, 40, "d.tsv", reach)
    assert capsys.readouterr().err == f"d.tsv: {line}\n"
    tell_cut(NOTHING, 40, "d.tsv", reach)
    assert capsys.readouterr().err == ""
