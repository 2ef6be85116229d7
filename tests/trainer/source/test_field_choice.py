"""Learning from chosen fields: what a choice means, what there is to learn then, and which run it makes."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from additions import Grown, add_odd, copied, graft
from hypothesis import given
from hypothesis import strategies as st
from tiny import CPU, HIDDEN, PREDICTION, config_file, fit_of, recipe_of, student_of, weights_of

from hskcache.cache import Cache
from hskcache.errors import MismatchError, SpecError
from hskcache.selection.depth import LayerPair
from trainer.loading.choice import Choice, choice_of, parse_choice
from trainer.recipe import Recipe
from trainer.run.fit import Fit, fit
from trainer.source.gate import check_recipe, check_student
from trainer.source.knowledge import cached_knowledge
from trainer.source.source import cached_source

SOFT = recipe_of(prediction=PREDICTION | {"losses": {"soft": {}}, "epochs": 1})
STAGES = recipe_of(hidden=HIDDEN | {"epochs": 1, "select": "best"}, prediction=PREDICTION)

positive = st.floats(1e-300, 1e300)


def choose(logits: dict[str, float] | None = None, hidden: str | None = None, attention: str | None = None) -> Choice:
    """Weights of fields of logits, and a field of each other kind."""
    weights = {"logits": logits or {}, "hidden": {hidden: 1.0}, "attention": {attention: 1.0}}
    return Choice({kind: named for kind, given in weights.items() if (named := {n: w for n, w in given.items() if n})})


@pytest.mark.parametrize(
    ("texts", "choice"),
    [
        ([], Choice()),
        (["s30"], choose({"s30": 1.0})),
        (["s30=0.2"], choose({"s30": 1.0})),
        (["s50=0.3", "s30=0.7"], choose({"s30": 0.7, "s50": 0.3})),
        (["s50", "logits", "s30"], choose({"logits": 1 / 3, "s30": 1 / 3, "s50": 1 / 3})),
        (["hidden2", "s30=1e0"], choose({"s30": 1.0}, "hidden2")),
        (["attention2", "hidden"], choose({}, "hidden", "attention2")),
    ],
)
def test_fields_are_named_with_or_without_a_weight(texts: list[str], choice: Choice, grown: Grown) -> None:
    found = parse_choice(grown.cache, texts)
    assert found == choice
    assert list(found.of("logits")) == sorted(found.of("logits"))


@given(weights=st.tuples(positive, positive, positive))
def test_weights_keep_their_proportions_and_add_up_to_1(weights: tuple[float, float, float], grown: Grown) -> None:
    given_weights = dict(zip(("s30", "s50", "logits"), weights, strict=True))
    shares = choice_of(grown.cache, list(given_weights), given_weights).weights["logits"]
    assert sum(shares.values()) == pytest.approx(1)
    largest = max(weights)
    assert all(
        shares[name] / max(shares.values()) == pytest.approx(weight / largest) for name, weight in given_weights.items()
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_mean_logits_are_the_geometric_mean_of_the_distributions(temperature: float) -> None:
    """What the choice's docstring says of the ensemble, at every temperature."""
    draw = np.random.default_rng(0)
    logits, weights = draw.normal(size=(3, 5)), np.array([0.5, 0.2, 0.3])

    def softmax(values: Any) -> Any:
        return np.exp(values) / np.exp(values).sum(-1, keepdims=True)

    geometric = np.prod(softmax(logits / temperature) ** weights[:, None], 0)
    np.testing.assert_allclose(softmax(weights @ logits / temperature), geometric / geometric.sum(), rtol=1e-12)


@pytest.mark.parametrize("fields", [["hidden2", "attention2", "s50"], ["hidden2"], ["attention2"]])
def test_layers_and_widths_are_those_of_the_chosen_fields_teacher(fields: list[str], grown: Grown) -> None:
    """And the rows, their tokens and their length those of the cache."""
    own, other = cached_knowledge(grown.plain), cached_knowledge(grown.six)
    mixed = cached_knowledge(grown.cache, parse_choice(grown.cache, fields))
    hidden, attention = (other if name in fields else own for name in ("hidden2", "attention2"))
    assert (mixed.fields["hidden"], mixed.fields["attention"]) == (
        hidden.fields["hidden"],
        attention.fields["attention"],
    )
    assert mixed.depths == {"hidden": hidden.depths["hidden"], "attention": attention.depths["attention"]}
    for matches, theirs, ours in (
        (mixed.matches, (hidden.matches, attention.matches), own.matches),
        (
            mixed.matches_for(3, "top"),
            (hidden.matches_for(3, "top"), attention.matches_for(3, "top")),
            own.matches_for(3, "top"),
        ),
    ):
        for kind, one in zip(("hidden", "attention"), theirs, strict=True):
            assert (matches.of(kind), matches.fields[kind]) == (one.of(kind), one.fields[kind])
        assert matches != ours
    assert mixed.request == own.request
    assert mixed.interface() == own.interface()


def test_pairs_of_a_chosen_field_are_counted_by_its_own_teachers_layers(grown: Grown) -> None:
    chosen = cached_knowledge(grown.cache, choose(hidden="hidden2"))
    assert chosen.matches.of("hidden") == (LayerPair(1, 3), LayerPair(2, 6))
    assert chosen.matches_for(2, "bottom").of("hidden")[-1] == LayerPair(2, 2)
    assert chosen.matches_for(3, "top").of("hidden")[-1] == LayerPair(3, 6)
    assert chosen.matches_for(3, "top").of("attention")[-1] == LayerPair(3, 4)


def with_manifest(cache: Cache, **changes: Any) -> Cache:
    """The same files, described otherwise."""
    return Cache(cache.manifest.model_copy(update=changes), cache.shelf)


def test_the_content_of_the_own_fields_is_the_id_from_before_anything_was_added(grown: Grown) -> None:
    plain, cache = grown.plain, grown.cache
    own = ["inputs", "logits", "hidden", "attention"]
    assert plain.identity(own) == plain.identity(own[::-1]) == cache.identity(own) == plain.id
    assert cache.identity(cache.fields) == cache.id
    some = [own[:1], own[:2], [*own[:1], "s30"], [*own[:1], "hidden2"], [*own[:2], "s30"]]
    assert len({cache.identity(fields) for fields in some}) == len(some)
    with pytest.raises(MismatchError, match="no field s70"):
        cache.identity(["inputs", "s70"])


def test_the_content_of_a_field_is_its_shards_its_constants_and_its_teacher(grown: Grown) -> None:
    cache, manifest = grown.cache, grown.cache.manifest
    stranger = manifest.added["hidden2"].model_copy(update={"teacher": manifest.request.teacher})
    constants = manifest.constants["hidden2"].model_copy(update={"sha256": "0" * 64})
    shards = [record.model_copy(update={"sha256": "0" * 64}) for record in manifest.shards["hidden2"]]
    for other in (
        with_manifest(cache, added=manifest.added | {"hidden2": stranger}),
        with_manifest(cache, constants=manifest.constants | {"hidden2": constants}),
        with_manifest(cache, shards=manifest.with_records({"hidden2": shards}).shards),
    ):
        assert other.identity(["hidden2"]) != cache.identity(["hidden2"])
        assert other.identity(["hidden", "s30"]) == cache.identity(["hidden", "s30"])


MakeFit = Callable[..., Fit]


@pytest.fixture
def make(grown: Grown, tsv_file: Path, narrow: Path) -> MakeFit:
    """A run over fields of a cache with the narrow student."""

    def job(recipe: Recipe, fields: Any = (), cache: Path = grown.cache.root, **changes: Any) -> Fit:
        source = cached_source(cache, fields=fields)
        return fit_of(cache, tsv_file, narrow, recipe, source=source, **changes)

    return job


@pytest.mark.parametrize(("field", "donor"), [("s30", "three"), ("s50", "six"), ("logits", "plain")])
def test_a_student_of_a_chosen_field_is_that_of_its_own_teachers_cache(
    field: str, donor: str, make: MakeFit, grown: Grown, tmp_path: Path
) -> None:
    fit(make(SOFT, (field,)), tmp_path / "chosen", CPU)
    fit(make(SOFT, cache=getattr(grown, donor).root), tmp_path / "own", CPU)
    chosen, own = weights_of(tmp_path / "chosen"), weights_of(tmp_path / "own")
    assert all(torch.equal(tensor, own[name]) for name, tensor in chosen.items())


def test_a_run_learns_from_fields_of_different_teachers(make: MakeFit, tmp_path: Path) -> None:
    """A projection to the width of the one, an average of the others, the own attention."""
    losses = {"hidden": {}, "attention": {"heads": "mean"}}
    recipe = recipe_of(layers=HIDDEN | {"losses": losses, "epochs": 1}, prediction=PREDICTION)
    result = fit(make(recipe, ("hidden2", "s30=2", "s50=1")), tmp_path / "out", CPU)
    assert [set(stage["losses"]) for stage in result["stages"]] == [{"hidden", "attention"}, {"soft", "label"}]
    again = make(recipe, choose({"s30": 2, "s50": 1}, "hidden2"))
    assert fit(again, tmp_path / "out", CPU) == result


@pytest.mark.parametrize("fields", [(), ("s30",)])
def test_a_finished_run_stays_finished_after_a_field_was_added(
    fields: tuple[str, ...], make: MakeFit, grown: Grown, tmp_path: Path
) -> None:
    cache = graft(copied(grown.plain, tmp_path / "cache"), "s30", grown.three, "logits")
    result = fit(make(SOFT, fields, cache.root), tmp_path / "out", CPU)

    def fail(_model: Any) -> dict[str, float]:
        raise AssertionError

    before = make(SOFT, fields, cache.root).identity
    assert add_odd(cache, grown.six).id != cache.id
    again = make(SOFT, fields, cache.root, score=fail)
    assert again.identity == before
    assert fit(again, tmp_path / "out", CPU) == result


@pytest.mark.parametrize("stage", ["hidden", "prediction"])
def test_a_cut_off_run_goes_on_after_a_field_was_added(stage: str, make: MakeFit, grown: Grown, tmp_path: Path) -> None:
    """To the same weights as one that was never stopped, from a stage without the chosen field and from one with it."""
    cache = graft(copied(grown.plain, tmp_path / "cache"), "s30", grown.three, "logits")
    machine = replace(CPU, save_steps=2)
    job = make(STAGES, ("s30",), cache.root)
    fit(job, tmp_path / "whole", machine)

    def interrupted(model: Any) -> dict[str, float]:
        if any(out.glob(f"stages/*-{stage}")):
            raise KeyboardInterrupt
        return job.score(model)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fit(make(STAGES, ("s30",), cache.root, score=interrupted), out, machine)
    assert sorted(path.name for path in out.glob(f"stages/*-{stage}/checkpoints/*")) == ["checkpoint-2", "checkpoint-4"]
    add_odd(cache, grown.six)
    fit(make(STAGES, ("s30",), cache.root), out, machine)
    ours, theirs = weights_of(out), weights_of(tmp_path / "whole")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_other_fields_or_weights_are_another_run(make: MakeFit, tmp_path: Path) -> None:
    fit(make(SOFT, ("s30=3", "s50=1")), tmp_path, CPU)
    fit(make(SOFT, ("s50=0.25", "s30=0.75")), tmp_path, CPU)
    for fields in ((), ("s30",), ("s30", "s50"), ("s30=1", "s50=3"), ("s30=3", "logits=1")):
        with pytest.raises(MismatchError, match=r"holds a run with knowledge .* or another --out"):
            fit(make(SOFT, fields), tmp_path, CPU)


def test_own_fields_by_name_are_the_run_without_a_choice(make: MakeFit, tmp_path: Path) -> None:
    result = fit(make(SOFT), tmp_path, CPU)
    assert fit(make(SOFT, ("logits",)), tmp_path, CPU) == result


def refusal(grown: Grown, choice: Choice, recipe: Recipe, student: Path, layer_map: str | None = None) -> str:
    knowledge = cached_knowledge(grown.cache, choice)
    model = student_of(cached_source(grown.cache.root), student)

    def check() -> None:
        check_recipe(knowledge, recipe)
        check_student(knowledge, recipe, model, layer_map)

    with pytest.raises((MismatchError, SpecError)) as caught:
        check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


LEARN_HIDDEN = recipe_of(learn=HIDDEN)
LEARN_LABELS = recipe_of(learn=HIDDEN | {"losses": {"label": {}}})


@pytest.mark.parametrize(
    ("choice", "recipe", "layers", "layer_map", "complaint"),
    [
        (choose({"odd": 1}), SOFT, 2, None, "field odd of the cache .* has 3 outputs and the rows ask for 2"),
        (choose({"s30": 1}), LEARN_LABELS, 2, None, "--field s30: recipe 'tiny' learns from no logits; leave the flag"),
        (choose({}, "hidden2"), SOFT, 2, None, "--field hidden2: recipe 'tiny' learns from no hidden states"),
        (choose({}, None, "attention2"), LEARN_HIDDEN, 2, None, "--field attention2: .* learns from no attention scor"),
        (choose({}, "hidden2"), LEARN_HIDDEN, 3, None, "has 3 layers and field hidden2 of the cache .* student of 2"),
        (choose({}, "hidden2"), LEARN_HIDDEN, 2, "top", "needs hidden layers 5 of field hidden2, which the cache"),
    ],
)
def test_a_chosen_field_that_does_not_fit_is_named_with_what_to_change(
    choice: Choice,
    recipe: Recipe,
    layers: int,
    layer_map: str | None,
    complaint: str,
    grown: Grown,
    tmp_path: Path,
) -> None:
    message = refusal(grown, choice, recipe, config_file(tmp_path, num_hidden_layers=layers), layer_map)
    assert re.search(complaint, message), message


def test_a_field_that_was_added_is_offered_where_the_cache_has_none_of_its_own(grown: Grown) -> None:
    whole = cached_knowledge(grown.cache)
    knowledge = replace(whole, fields={"logits": whole.fields["logits"]})
    with pytest.raises(MismatchError, match="keeps none; give --field hidden2, which was added to it"):
        check_recipe(knowledge, LEARN_HIDDEN)
    recipe = recipe_of(learn=HIDDEN | {"losses": {"attention": {}}})
    with pytest.raises(MismatchError, match="keeps none; give --field attention2, which was added to it"):
        check_recipe(knowledge, recipe)


def test_a_choice_made_by_hand_is_checked_like_a_parsed_one(grown: Grown) -> None:
    for choice, complaint in (
        (choose({"s70": 1.0}), "no field s70"),
        (choose({"s30": -1.0}), "the weight -1"),
        (choose({"s30": 1.0, "odd": 1.0}), "cannot be averaged"),
        (choose(hidden="s30"), "field s30 holds logits; choose it for those, not for hidden states"),
    ):
        with pytest.raises((MismatchError, SpecError), match=complaint):
            cached_source(grown.cache.root, fields=choice)
