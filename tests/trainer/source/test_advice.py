"""Advice leads somewhere: whoever follows what a refusal says comes to something that works, not to another refusal."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.store.kinds.embedding import EmbeddingField
from trainer.recipe import known_recipes, load_recipe
from trainer.source.gate import check_recipe
from trainer.source.knowledge import Knowledge, cached_knowledge

EMBEDDED = EmbeddingField(width=32, num_dims=32, pooling="mean", is_normalized=True, encoding="float16")
KEPT = list(product((False, True), repeat=3))


@pytest.fixture(scope="module")
def whole(written: Callable[..., Cache]) -> Knowledge:
    """Rows of a task with labels, logits, hidden states of all layers and attention."""
    knowledge = cached_knowledge(written())
    assert set(knowledge.fields) == {"hidden", "attention", "logits"}
    assert knowledge.has_labels
    return knowledge


def holding(whole: Knowledge, is_corpus: bool, kept: tuple[bool, bool, bool], is_embedded: bool = False) -> Knowledge:
    """What a cache offers that keeps less: labels, hidden states, attention; or that of a corpus."""
    labels, hidden, attention = kept
    kinds = {"logits": not is_corpus, "hidden": hidden, "attention": attention}
    fields = {kind: field for kind, field in whole.fields.items() if kinds[kind]}
    if is_embedded:
        fields["embedding"] = EMBEDDED
    less = replace(whole, has_labels=labels and not is_corpus, fields=fields)
    if not is_corpus:
        return less
    data = whole.request.data.model_copy(update={"problem": "text", "label_names": [], "task": None})
    return replace(less, request=whole.request.model_copy(update={"data": data}))


def built(whole: Knowledge, is_corpus: bool, flags: str) -> Knowledge:
    """What a build with these flags would offer."""
    kept = ("--label" in flags, "--keep" in flags, "--attention" in flags)
    return holding(whole, is_corpus, kept, "--embedding" in flags)


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("is_corpus", [False, True])
@pytest.mark.parametrize("name", known_recipes())
def test_every_way_that_is_advised_ends_in_what_works(
    name: str, is_corpus: bool, kept: tuple[bool, bool, bool], whole: Knowledge
) -> None:
    knowledge, recipe = holding(whole, is_corpus, kept), load_recipe(name)
    try:
        check_recipe(knowledge, recipe)
    except MismatchError as error:
        advice = str(error).rpartition("; ")[2]
    else:
        return
    followed = 0
    if recipes := re.search(r"use --recipe (.*)", advice):
        for other in recipes[1].split(" or "):
            check_recipe(knowledge, load_recipe(other))
            followed += 1
    if build := re.search(
        r"(?:for --recipe (\S+) )?build it with ((?:--\S+ \S+(?: |$|(?=,)))+)", advice.replace(",", " ,")
    ):
        check_recipe(built(whole, is_corpus, build[2]), load_recipe(build[1] or name))
        followed += 1
    assert followed, advice


def test_a_corpus_of_hidden_states_alone_is_not_sent_round(whole: Knowledge) -> None:
    knowledge = holding(whole, True, (False, True, False))
    for name in ("mud", "tinybert-general"):
        with pytest.raises(MismatchError, match=r"build it with --keep full --attention full$"):
            check_recipe(knowledge, load_recipe(name))


def test_all_that_a_recipe_needs_is_told_at_once(whole: Knowledge) -> None:
    knowledge = holding(whole, False, (False, False, False))
    with pytest.raises(
        MismatchError, match=r"build it with --keep full --attention full, or use --recipe logits or logits-long$"
    ):
        check_recipe(knowledge, load_recipe("tinybert-task"))


def test_a_stage_of_a_corpus_that_picks_the_best_epoch_takes_the_last(whole: Knowledge) -> None:
    knowledge = holding(whole, True, (False, True, True))
    with pytest.raises(MismatchError) as caught:
        check_recipe(knowledge, load_recipe("tinybert-general", ["general.select=best"]))
    change = re.search(r"use --set (\S+)$", str(caught.value))
    assert change
    check_recipe(knowledge, load_recipe("tinybert-general", ["general.select=best", change[1]]))


def test_fields_that_were_added_do_in_place_of_a_build(whole: Knowledge) -> None:
    knowledge = replace(holding(whole, False, (True, False, False)), added={"hidden": ("h30",), "attention": ("a30",)})
    with pytest.raises(MismatchError, match="give --field h30 --field a30, which were added to it"):
        check_recipe(knowledge, load_recipe("tinybert-task"))
