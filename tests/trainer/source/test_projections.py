"""Projections: when there is one, what is drawn, and the file that keeps them beside a student."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from hskcache.errors import DamageError
from hskcache.selection.depth import LayerPair
from hskcache.store.fields import HiddenField
from trainer.losses.matches import Matches
from trainer.recipe import EmbeddingTerm, HiddenTerm, Losses
from trainer.source.projections import FILE, Widths, described, draw, load, needed, save, widths_of

WIDE = HiddenField(width=32, num_columns=32, columns="all", encoding="float32", layers=[0, 2, 4])
MATCHES = Matches({"hidden": (LayerPair(0, 0), LayerPair(1, 2), LayerPair(2, 4))}, {"hidden": WIDE})
ALONE = HiddenTerm(embedding=False)


def linears() -> dict[str, nn.Linear]:
    return {"shared": nn.Linear(3, 5), "layer_02": nn.Linear(3, 7), "layer_11": nn.Linear(4, 5)}


def test_what_is_saved_is_loaded_to_the_bit_and_draws_nothing(tmp_path: Path) -> None:
    saved = linears()
    save(saved, tmp_path)
    before = torch.get_rng_state()
    again = load(tmp_path / FILE)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.keys() == saved.keys()
    for name, projection in saved.items():
        assert widths_of(again[name]) == widths_of(projection)
        assert torch.equal(again[name].weight, projection.weight)
        assert torch.equal(again[name].bias, projection.bias)
        assert again[name].weight.requires_grad


def test_equal_projections_are_equal_bytes(tmp_path: Path) -> None:
    saved = linears()
    save(saved, tmp_path)
    first = (tmp_path / FILE).read_bytes()
    save(dict(reversed(saved.items())), tmp_path)
    assert (tmp_path / FILE).read_bytes() == first


def test_the_file_tells_what_each_belongs_to_and_is_read_by_anybody(tmp_path: Path) -> None:
    save(linears(), tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        assert json.loads(file.metadata()["projections"]) == {
            "shared": {"layer": None, "student_width": 3, "teacher_width": 5},
            "layer_02": {"layer": 2, "student_width": 3, "teacher_width": 7},
            "layer_11": {"layer": 11, "student_width": 4, "teacher_width": 5},
        }
    assert load_file(tmp_path / FILE)["layer_02.weight"].shape == (7, 3)


def test_without_projections_there_is_no_file(tmp_path: Path) -> None:
    save(linears(), tmp_path)
    save({}, tmp_path)
    assert not any(tmp_path.iterdir())
    save({}, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "foreign", "lacking", "misshapen", "mislabelled", "nameless"])
def test_a_file_that_does_not_hold_what_it_says_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    record = {"shared": {"layer": None, "student_width": 2, "teacher_width": 3}}
    tensors = {"shared.weight": torch.ones(3, 2), "shared.bias": torch.ones(3)}
    if damage == "lacking":
        del tensors["shared.bias"]
    if damage == "misshapen":
        tensors["shared.bias"] = torch.ones(2)
    if damage == "mislabelled":
        record["shared"]["teacher_width"] = 4
    if damage == "nameless":
        tensors = {name.replace("shared", "any"): tensor for name, tensor in tensors.items()}
        record = {"any": record["shared"]}
    save_file(tensors, path, None if damage == "foreign" else {"projections": json.dumps(record)})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamageError, match=rf"{FILE}.*--projection fresh"):
        load(path)


def test_those_that_are_drawn_are_as_ever_and_do_not_depend_on_those_that_are_held() -> None:
    """As before any could be held: in the order of the layers, from the seed alone."""
    needs = {"shared": Widths(3, 5), "layer_01": Widths(3, 5), "layer_02": Widths(3, 5)}
    torch.manual_seed(9)
    expected = [nn.Linear(3, 5) for _ in needs]
    held = linears()
    for mine in ({}, {"layer_01": held["shared"]}):
        drawn = draw(needs, mine, 9)
        assert list(drawn) == list(needs)
        for projection, name in zip(expected, needs, strict=True):
            if name in mine:
                assert drawn[name] is mine[name]
            else:
                assert torch.equal(drawn[name].weight, projection.weight)
                assert torch.equal(drawn[name].bias, projection.bias)


@pytest.mark.parametrize(
    ("losses", "width", "names"),
    [
        (Losses(embedding=EmbeddingTerm(), hidden=ALONE), 16, ["shared"]),
        (Losses(embedding=EmbeddingTerm(), hidden=ALONE), 32, []),
        (Losses(embedding=EmbeddingTerm(project_equal_widths=True), hidden=ALONE), 32, ["shared"]),
        (Losses(hidden=HiddenTerm(shared_projection=False)), 16, ["layer_00", "layer_01", "layer_02"]),
        (
            Losses(hidden=HiddenTerm(shared_projection=False, project_equal_widths=True)),
            32,
            ["layer_00", "layer_01", "layer_02"],
        ),
        (
            Losses(embedding=EmbeddingTerm(shared_projection=False), hidden=ALONE),
            16,
            ["layer_00", "shared"],
        ),
    ],
)
def test_a_projection_stands_where_widths_differ_or_one_is_asked_for(
    losses: Losses, width: int, names: list[str]
) -> None:
    assert list(needed(losses, MATCHES, width)) == names
    assert needed(losses, Matches(), width) == {}


def test_projections_in_words() -> None:
    widths = dict.fromkeys(("shared", "layer_00", "layer_11"), Widths(312, 768))
    assert described(["shared"], widths) == "shared, 312 -> 768"
    assert described(["layer_11"], widths) == "layer 11, 312 -> 768"
    assert described(["layer_11", "layer_00", "shared"], widths) == "shared, layers 0, 11, 312 -> 768"
