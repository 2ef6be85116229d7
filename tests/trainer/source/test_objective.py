"""The objective: weights, projections, and use in a loop of one's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import config_file, student_of

from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.selection.depth import LayerPair
from hskcache.store.fields import HiddenField
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.losses.matches import Matches
from trainer.recipe import HiddenTerm, LabelTerm, Losses, SoftTerm
from trainer.source.objective import Objective
from trainer.source.source import Source, cached_source

PAIRS = (LayerPair(1, 2), LayerPair(2, 4))
WIDE = HiddenField(width=32, num_columns=32, columns="all", encoding="float32", layers=[0, 2, 4])
MATCHES = Matches({"hidden": PAIRS}, {"hidden": WIDE})


@pytest.fixture(scope="session")
def source(cache_dir: Path) -> Source:
    return cached_source(cache_dir)


@pytest.fixture(scope="session")
def batch(caches: Callable[[str], Cache]) -> Batch:
    return next(iter(KnowledgeLoader(caches("bitmask"), batch_size=16)))


def test_the_total_is_the_weighted_sum_of_the_terms(source: Source, batch: Batch, wide: Path) -> None:
    losses = Losses(
        hidden=HiddenTerm(weight=2.0), soft=SoftTerm(weight=0.5, temperature=3.0), label=LabelTerm(weight=4)
    )
    student = student_of(source, wide)
    total, terms = Objective(student, losses, MATCHES)(batch)
    assert list(terms) == ["hidden", "soft", "label"]
    assert total.item() == pytest.approx(2 * terms["hidden"] + 0.5 * terms["soft"] + 4 * terms["label"])
    assert not any(term.requires_grad for term in terms.values())
    for name, alone in (
        ("hidden", Losses(hidden=HiddenTerm())),
        ("soft", Losses(soft=SoftTerm(temperature=3.0))),
        ("label", Losses(label=LabelTerm())),
    ):
        value, only = Objective(student, alone, MATCHES)(batch)
        assert list(only) == [name]
        assert value.item() == pytest.approx(terms[name].item(), rel=1e-6)


def test_the_squared_temperature_is_part_of_the_term(source: Source, batch: Batch, wide: Path) -> None:
    """So that the logged terms times their weights give the loss."""
    student = student_of(source, wide)
    with_factor, without = (
        Objective(student, Losses(soft=SoftTerm(weight=0.5, temperature=3, temperature_squared=squared)))(batch)
        for squared in (True, False)
    )
    assert with_factor[1]["soft"].item() == pytest.approx(9 * without[1]["soft"].item(), rel=1e-6)
    assert with_factor[0].item() == pytest.approx(0.5 * with_factor[1]["soft"].item(), rel=1e-6)


def test_hidden_losses_of_the_layers_add_up(source: Source, batch: Batch, wide: Path) -> None:
    student = student_of(source, wide)
    losses = Losses(hidden=HiddenTerm())
    both, first, second = (
        Objective(student, losses, Matches({"hidden": pairs}, {"hidden": WIDE}))(batch)[0]
        for pairs in (PAIRS, PAIRS[:1], PAIRS[1:])
    )
    assert both.item() == pytest.approx(first.item() + second.item(), rel=1e-6)


@pytest.mark.parametrize(("shared", "names"), [(True, ["shared"]), (False, ["layer_01", "layer_02"])])
def test_a_narrow_student_gets_a_projection_for_all_layers_or_for_each(
    shared: bool, names: list[str], source: Source, batch: Batch, narrow: Path
) -> None:
    student = student_of(source, narrow)
    losses = Losses(hidden=HiddenTerm(shared_projection=shared))
    objective = Objective(student, losses, MATCHES, seed=1)
    assert sorted(objective.projections) == names
    assert all(projection.weight.shape == (32, 16) for projection in objective.projections.values())
    objective(batch)[0].backward()
    assert all(parameter.grad is not None for parameter in objective.projections.parameters())
    again, other = (Objective(student, losses, MATCHES, seed=seed).projections.state_dict() for seed in (1, 2))
    ours = objective.projections.state_dict()
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert not any(torch.equal(ours[name], other[name]) for name in ours)


def test_no_projection_where_widths_agree_or_no_hidden_state_is_learned(
    source: Source, narrow: Path, wide: Path
) -> None:
    assert not Objective(student_of(source, wide), Losses(hidden=HiddenTerm()), MATCHES).projections
    assert not Objective(student_of(source, narrow), Losses(soft=SoftTerm()), MATCHES).projections


def test_a_projection_between_equal_widths_is_learned_through_by_the_term_that_asks(
    source: Source, batch: Batch, wide: Path
) -> None:
    student = student_of(source, wide)
    objective = Objective(student, Losses(hidden=HiddenTerm(project_equal_widths=True)), MATCHES, seed=1)
    without = Objective(student, Losses(hidden=HiddenTerm()), MATCHES)
    projection = objective.projections["shared"]
    assert projection.weight.shape == (32, 32)
    objective(batch)[0].backward()
    assert projection.weight.grad.abs().sum() > 0
    assert objective(batch)[0].item() != pytest.approx(without(batch)[0].item(), rel=1e-3)
    with torch.no_grad():
        projection.weight.copy_(torch.eye(32))
        projection.bias.zero_()
    assert objective(batch)[0].item() == pytest.approx(without(batch)[0].item(), rel=1e-6)


def test_making_an_objective_leaves_the_random_generators_alone(source: Source, narrow: Path) -> None:
    student = student_of(source, narrow)
    before = torch.get_rng_state()
    Objective(student, Losses(hidden=HiddenTerm()), MATCHES)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("losses", "fields", "complaint"),
    [
        (Losses(soft=SoftTerm()), ("hidden",), "logits"),
        (Losses(hidden=HiddenTerm()), ("logits",), "hidden states of layer 2"),
    ],
)
def test_a_batch_that_lacks_what_a_loss_needs_is_refused(
    losses: Losses, fields: tuple[str, ...], complaint: str, caches: Callable[[str], Cache], source: Source, wide: Path
) -> None:
    lacking = next(iter(KnowledgeLoader(caches("bitmask"), fields=fields)))
    with pytest.raises(MismatchError, match=f"learns from {complaint} and the batch has none"):
        Objective(student_of(source, wide), losses, MATCHES)(lacking)


def test_a_loop_of_ones_own_needs_no_trainer(caches: Callable[[str], Cache], source: Source, narrow: Path) -> None:
    """The loader, the objective and any optimiser."""
    loader = KnowledgeLoader(caches("bitmask"), batch_size=16)
    knowledge = source.knowledge
    objective = Objective(
        student_of(source, narrow),
        Losses(hidden=HiddenTerm(), soft=SoftTerm()),
        knowledge.matches,
    )
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    epochs = []
    for _ in range(4):
        values = []
        for batch in loader:
            loss, _ = objective(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            values.append(loss.item())
        epochs.append(sum(values) / len(values))
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] < 0.8 * epochs[0]


def test_a_student_without_token_types_takes_rows_that_have_them(source: Source, batch: Batch, tmp_path: Path) -> None:
    config = config_file(tmp_path, model_type="distilbert", dim=32, n_layers=2, n_heads=2, hidden_dim=32)
    student = student_of(source, config)
    assert "token_type_ids" in batch.inputs
    loss, _ = Objective(student, Losses(hidden=HiddenTerm(), soft=SoftTerm()), MATCHES)(batch)
    assert torch.isfinite(loss)


def test_the_loop_in_the_readme_trains(
    caches: Callable[[str], Cache], source: Source, narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("## Your own training loop")[2].partition("```python\n")[2].partition("```")[0]
    assert "KnowledgeLoader(cache" in code
    (tmp_path / "sst2.hsk").symlink_to(caches("bitmask").root)
    monkeypatch.chdir(tmp_path)
    student, projection = student_of(source, narrow), torch.nn.Linear(16, 32)
    optimizer = torch.optim.AdamW([*student.parameters(), *projection.parameters()], lr=1e-3)
    names = {"student": student, "projection": projection, "optimizer": optimizer}
    before = projection.weight.clone()
    exec(code.replace('"cuda"', '"cpu"').replace("range(10)", "range(2)"), names)
    assert not torch.equal(projection.weight, before)
