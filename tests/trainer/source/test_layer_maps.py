"""Which student layer learns from which teacher layer, chosen when the student is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CPU, config_file, fit_of, recipe_of, scalars, student_of, weights_of

from hskcache.cache import Cache
from hskcache.errors import MismatchError, SpecError
from hskcache.spec import Depth
from trainer.loading import KnowledgeLoader
from trainer.run.fit import fit
from trainer.source.gate import check_recipe, check_student
from trainer.source.knowledge import Knowledge, cached_knowledge
from trainer.source.objective import Objective
from trainer.source.source import Slice, cached_source
from trainer.student import CompactBertConfig, CompactBertForSequenceClassification

Written = Callable[..., Cache]
ALL: dict[str, Any] = {"embedding": {}, "hidden": {"embedding": False}, "attention": {}}
# Everything is stored; the map it was made for is uniform, for a student of two layers.
STORED = Depth(student_layers=2, stored="all")


def pairs(knowledge: Knowledge, layers: int, layer_map: str | None) -> tuple[list[tuple[int, int]], ...]:
    matches = knowledge.matches_for(layers, layer_map)
    return tuple(
        [(match.student, match.teacher) for match in one] for one in (matches.of("hidden"), matches.of("attention"))
    )


@pytest.mark.parametrize(
    ("layers", "layer_map", "expected"),
    [
        (2, None, [(0, 0), (1, 2), (2, 4)]),
        (2, "uniform", [(0, 0), (1, 2), (2, 4)]),
        (3, "uniform", [(0, 0), (1, 1), (2, 3), (3, 4)]),
        (3, "top", [(0, 0), (1, 2), (2, 3), (3, 4)]),
        (3, "bottom", [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (2, "1,4", [(0, 0), (1, 1), (2, 4)]),
        (3, "2,2,1", [(0, 0), (1, 2), (2, 2), (3, 1)]),
    ],
)
def test_a_cache_of_all_layers_serves_every_map_and_depth(
    layers: int, layer_map: str | None, expected: list[tuple[int, int]], written: Written, tmp_path: Path
) -> None:
    cache = written(depth=STORED)
    knowledge = cached_knowledge(cache)
    assert pairs(knowledge, layers, layer_map) == (expected, expected[1:])
    recipe = recipe_of(learn={"losses": ALL, "epochs": 1})
    student = student_of(
        cached_source(cache.root), config_file(tmp_path, num_hidden_layers=layers, num_attention_heads=4)
    )
    check_student(knowledge, recipe, student, layer_map)
    batch = next(iter(KnowledgeLoader(cache)))
    _, terms = Objective(student, recipe.stages[0].losses, knowledge.matches_for(layers, layer_map))(batch)
    assert list(terms) == ["embedding", "hidden", "attention"]


def test_the_map_keeps_the_target_and_the_number_of_layers_that_were_asked_for(written: Written) -> None:
    depth = Depth(student_layers=3, target=3, num_layers=2, stored=[0, 1, 2, 3, 4])
    knowledge = cached_knowledge(written(depth=depth))
    assert pairs(knowledge, 2, "uniform") == ([(1, 2), (2, 3)], [(1, 2), (2, 3)])
    assert pairs(knowledge, 1, "top") == ([(0, 0), (1, 3)], [(1, 3)])


def test_listed_student_layers_stay_the_same_in_every_map(written: Written) -> None:
    knowledge = cached_knowledge(written(depth=Depth(student_layers=3, kept=[1, 3], stored=[0, 1, 2, 3, 4])))
    assert pairs(knowledge, 3, None) == ([(1, 1), (3, 4)], [(1, 1), (3, 4)])
    assert pairs(knowledge, 3, "top") == ([(1, 2), (3, 4)], [(1, 2), (3, 4)])
    with pytest.raises(SpecError, match="student layers 1,3 are to be kept, but a student of 2 layers has layers 0"):
        knowledge.matches_for(2, "top")
    # Where everything is stored a list was no wish to have fewer of them.
    everything = cached_knowledge(written(depth=Depth(student_layers=3, kept=[1, 3], stored="all")))
    assert pairs(everything, 2, "top") == ([(0, 0), (1, 3), (2, 4)], [(1, 3), (2, 4)])


def refusal(knowledge: Knowledge, student: Any, layer_map: str | None, losses: dict[str, Any], error: Any) -> str:
    with pytest.raises(error) as caught:
        check_student(knowledge, recipe_of(learn={"losses": losses, "epochs": 1}), student, layer_map)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("layers", "layer_map", "losses", "error", "complaint"),
    [
        (3, "middle", ALL, SpecError, "--layer-map 'middle' is not uniform, top, bottom or numbers"),
        (3, "0,1,2", ALL, SpecError, "--layer-map 0,1,2: layers.0"),
        (3, "1,,2", ALL, SpecError, "is not uniform, top, bottom or numbers"),
        (3, "1,2", ALL, SpecError, "the map 1,2 names 2 teacher layers for 3 student layers"),
        (3, "1,2,5", ALL, SpecError, "names layer 5, but the teacher has 4 layers"),
        (5, "top", ALL, SpecError, "among the teacher's first 4"),
        (2, "uniform", {"soft": {}}, SpecError, "learns from no layer; leave the flag out"),
        (3, None, ALL, MismatchError, "--student-layers 3, or use a student of 2 layers, or give --layer-map uniform"),
    ],
)
def test_maps_that_cannot_be_followed_are_refused(
    layers: int, layer_map: str | None, losses: Any, error: Any, complaint: str, written: Written, tmp_path: Path
) -> None:
    cache = written(depth=STORED)
    config = config_file(tmp_path, num_hidden_layers=layers, num_attention_heads=4)
    student = student_of(cached_source(cache.root), config)
    assert complaint in refusal(cached_knowledge(cache), student, layer_map, losses, error)


def test_layers_that_are_not_stored_are_named(written: Written, tmp_path: Path) -> None:
    cache = written()
    knowledge = cached_knowledge(cache)
    student = student_of(cached_source(cache.root), config_file(tmp_path, num_attention_heads=4))
    message = refusal(knowledge, student, "top", ALL, MismatchError)
    assert "--layer-map top needs hidden layers 3 and attention of layers 3" in message
    assert f"{knowledge.where} does not keep; build it with --store-layers all" in message
    assert "attention" not in refusal(knowledge, student, "top", {"hidden": {}}, MismatchError)
    deep = student_of(cached_source(cache.root), config_file(tmp_path, num_hidden_layers=3, num_attention_heads=4))
    assert "--layer-map" not in refusal(knowledge, deep, None, {"hidden": {}}, MismatchError)


def test_a_map_needs_only_the_layers_that_a_stage_learns_from(written: Written, tmp_path: Path) -> None:
    """Without the embedding output, layer 0 may be missing."""
    depth = Depth(student_layers=2, stored=[1, 2, 3, 4])
    cache = written(depth=depth)
    student = student_of(cached_source(cache.root), config_file(tmp_path, num_attention_heads=4))
    knowledge = cached_knowledge(cache)
    without = recipe_of(learn={"losses": {"hidden": {"embedding": False}, "attention": {}}, "epochs": 1})
    check_student(knowledge, without, student, "bottom")
    assert "needs hidden layers 0," in refusal(knowledge, student, "bottom", {"hidden": {}}, MismatchError)
    message = refusal(knowledge, student, None, {"embedding": {}}, MismatchError)
    assert "learns from the embedding output (layer 0)" in message


def test_only_the_layers_of_the_map_are_loaded(written: Written) -> None:
    source = cached_source(written(depth=STORED).root)
    losses = recipe_of(learn={"losses": ALL, "epochs": 1}).stages[0].losses
    batch = next(iter(source.loader(losses, Slice(8, 0, 1, 1, "cpu", {"hidden": (0, 1, 3), "attention": (3,)}), 0)))
    assert (list(batch.hidden), list(batch.attention)) == ([0, 1, 3], [3])


@pytest.mark.parametrize("layers", [2, 3])
def test_the_map_decides_what_is_learned_and_belongs_to_the_run(
    layers: int, written: Written, tsv_file: Path, tmp_path: Path
) -> None:
    cache = written(depth=STORED).root
    student = config_file(tmp_path, width=16, num_hidden_layers=layers, num_attention_heads=4)
    recipe = recipe_of(learn={"losses": ALL, "epochs": 1, "batch_size": 8})
    losses = {}
    for name in ("top", "bottom"):
        result = fit(fit_of(cache, tsv_file, student, recipe, layer_map=name), tmp_path / name, CPU)
        losses[name] = list(scalars(tmp_path / name / "logs" / "learn")["train/loss_attention"].values())
        assert result["stages"][0]["losses"].keys() == ALL.keys()
        assert result["stages"][0]["losses"]["attention"] == pytest.approx(losses[name][-1])
    assert losses["top"] != losses["bottom"]
    top, bottom = (weights_of(tmp_path / name) for name in ("top", "bottom"))
    assert not all(torch.equal(tensor, bottom[name]) for name, tensor in top.items())
    with pytest.raises(MismatchError, match="holds a run with layer_map 'top' and this one has 'bottom'"):
        fit(fit_of(cache, tsv_file, student, recipe, layer_map="bottom"), tmp_path / "top", CPU)


@pytest.mark.parametrize(
    ("losses", "flags"), [({"attention": {}}, "--attention full"), ({"embedding": {}}, "--keep full")]
)
def test_what_a_stage_learns_from_and_nobody_kept_is_named_with_the_flag(
    losses: Any, flags: str, written: Written
) -> None:
    knowledge = cached_knowledge(written(hidden=False, attention=False))
    with pytest.raises(MismatchError, match=f"stage 'learn' .* keeps none; build it with {flags}"):
        check_recipe(knowledge, recipe_of(learn={"losses": losses, "epochs": 1}))


def test_heads_that_do_not_fit_are_refused_with_the_setting_to_change(written: Written, tmp_path: Path) -> None:
    cache = written()
    student = student_of(cached_source(cache.root), config_file(tmp_path, num_attention_heads=2))
    message = refusal(cached_knowledge(cache), student, None, {"attention": {}}, MismatchError)
    assert "the student has 2 attention heads and 4 of the teacher's 4 are stored" in message
    assert "--set learn.losses.attention.heads=" in message
    recipe = recipe_of(learn={"losses": {"attention": {"heads": [0, 2]}}, "epochs": 1})
    check_student(cached_knowledge(cache), recipe, student)


def test_a_cache_of_all_layers_serves_every_layer_of_a_map_though_it_was_asked_for_one(
    written: Written, tmp_path: Path
) -> None:
    """What the refusal of its own pairs says to do is possible."""
    cache = written(depth=Depth(student_layers=2, num_layers=1, stored="all"))
    student = student_of(cached_source(cache.root), config_file(tmp_path, num_attention_heads=4))
    knowledge = cached_knowledge(cache)
    assert "give --layer-map uniform: the layers are there" in refusal(knowledge, student, None, ALL, MismatchError)
    check_student(knowledge, recipe_of(learn={"losses": ALL, "epochs": 1}), student, "uniform")
    assert [match.teacher for match in knowledge.matches_for(2, "top").of("hidden")] == [0, 3, 4]


def test_a_student_without_attention_of_the_usual_kind_is_refused(written: Written) -> None:
    from transformers import FNetConfig, FNetForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    cache = written(depth=STORED)
    student = FNetForSequenceClassification(FNetConfig(vocab_size=150, **sizes))
    complaint = refusal(cached_knowledge(cache), student, None, ALL, MismatchError)
    assert "the attention of FNetForSequenceClassification cannot be seen" in complaint


def test_a_student_of_different_numbers_of_heads_is_refused_where_attention_is_taught(written: Written) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    config = CompactBertConfig(vocab_size=150, head_size=4, heads_by_layer=[4, 1], **sizes)
    cache = written(depth=STORED)
    student = CompactBertForSequenceClassification(config)
    complaint = refusal(cached_knowledge(cache), student, None, ALL, MismatchError)
    assert "the student has 4, 1 heads in its layers" in complaint
