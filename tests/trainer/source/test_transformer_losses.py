"""The losses of TinyBERT between real models, against both of them run with the eager attention of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import eager, watched
from tiny import CPU, config_file, fit_of, recipe_of, student_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, PreTrainedModel

from hskcache.attention import IMPLEMENTATION
from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.selection.depth import LayerPair
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.losses.matches import Matches
from trainer.recipe import AttentionTerm, EmbeddingTerm, HiddenTerm, Losses, SoftTerm
from trainer.run.fit import fit
from trainer.source.knowledge import cached_knowledge
from trainer.source.objective import Objective, restore_attention
from trainer.source.source import cached_source

Written = Callable[..., Cache]
ALL = Losses(embedding=EmbeddingTerm(), hidden=HiddenTerm(embedding=False), attention=AttentionTerm())
# Layers of the usual cache, student layer to teacher layer.
PAIRS = {1: 2, 2: 4}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """As many heads as the teacher, half its width."""
    return config_file(tmp_path, width=16, num_attention_heads=4)


def twins(cache: Cache, config: Path, folder: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student, and the same with eager attention."""
    student = student_of(cached_source(cache.root), config)
    student.save_pretrained(folder / "student")
    return student, eager(folder / "student")


def test_a_padded_mean_is_that_of_padded_rows_with_masked_entries_at_zero(
    written: Written, tiny_teacher_dir: Path, config: Path, tmp_path: Path
) -> None:
    """B x H x L x L entries, L the cache's greatest length; whole batches and slices of one alike."""
    cache = written(tokens=None)
    student, slow = twins(cache, config, tmp_path)
    length = cache.manifest.request.spec.max_length
    batch = next(iter(KnowledgeLoader(cache, batch_size=12)))
    real = batch.inputs["attention_mask"].bool()
    pairs = nn.functional.pad(real[:, :, None] & real[:, None], (0, length - real.shape[1]) * 2)
    expected = torch.zeros(())
    teacher = eager(tiny_teacher_dir)
    with watched(slow) as ours, watched(teacher) as theirs, torch.no_grad():
        slow(**batch.inputs)
        teacher(**batch.inputs)
    for own, other in PAIRS.items():
        padded = [nn.functional.pad(scores, (0, length - real.shape[1]) * 2) for scores in (ours[own], theirs[other])]
        expected = expected + nn.functional.mse_loss(*(scores.masked_fill(~pairs[:, None], 0.0) for scores in padded))
    losses = Losses(attention=AttentionTerm(mean="padded"))
    loss, _ = Objective(student, losses, cached_knowledge(cache).matches)(batch)
    assert abs(loss.item() / expected.item() - 1) < 1e-6
    slices = [next(iter(KnowledgeLoader(cache, batch_size=6, rank=rank, world_size=2))) for rank in range(2)]
    parts = [Objective(student, losses, cached_knowledge(cache).matches)(part)[0].item() for part in slices]
    assert abs(sum(parts) / expected.item() - 1) < 1e-6


def direct_attention(model: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, cache: Cache) -> Tensor:
    """The sum over the layers of the mean over heads, queries and keys at the positions the cache keeps."""
    with watched(model) as ours:
        model(**batch.inputs)
    with torch.no_grad(), watched(teacher) as theirs:
        teacher(**batch.inputs)
    total = torch.zeros(())
    for own, other in PAIRS.items():
        errors = []
        for place, row in enumerate(batch.row_ids):
            kept = cache.row(row)["attention"][other]["positions"].tolist()
            difference = (ours[own] - theirs[other])[place][:, kept][:, :, kept]
            errors.append(difference.square().flatten())
        total = total + torch.cat(errors).mean()
    return total


@pytest.mark.parametrize("tokens", [6, 9, None])
def test_the_attention_loss_and_its_gradient_are_those_of_eager_models(
    tokens: int | None, written: Written, tiny_teacher_dir: Path, config: Path, tmp_path: Path
) -> None:
    cache = written(tokens=tokens)
    student, slow = twins(cache, config, tmp_path)
    batch = next(iter(KnowledgeLoader(cache, batch_size=12)))
    objective = Objective(student, Losses(attention=AttentionTerm()), cached_knowledge(cache).matches)
    loss, terms = objective(batch)
    expected = direct_attention(slow, eager(tiny_teacher_dir), batch, cache)
    assert list(terms) == ["attention"]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    for (name, mine), theirs in zip(student.named_parameters(), slow.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert student.base_model.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


def test_scores_are_those_before_the_softmax(written: Written, config: Path, tmp_path: Path) -> None:
    """What the oracle above compares becomes, with the mask and a softmax, what transformers calls attentions."""
    cache = written()
    _, slow = twins(cache, config, tmp_path)
    batch = next(iter(KnowledgeLoader(cache, batch_size=6)))
    with torch.no_grad(), watched(slow) as scores:
        output = slow(**batch.inputs, output_attentions=True)
    padding = (1 - batch.inputs["attention_mask"])[:, None, None] * torch.finfo(torch.float32).min
    for layer, attentions in enumerate(output.attentions, start=1):
        torch.testing.assert_close((scores[layer] + padding).softmax(-1), attentions, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shared", [True, False])
def test_hidden_and_embedding_losses_are_those_of_the_paper(
    shared: bool, written: Written, tiny_teacher_dir: Path, config: Path, tmp_path: Path
) -> None:
    """One projection for all of them, as in the release, or one a layer and W_e for the embedding."""
    cache = written()
    student, slow = twins(cache, config, tmp_path)
    batch = next(iter(KnowledgeLoader(cache, batch_size=12)))
    losses = Losses(
        embedding=EmbeddingTerm(shared_projection=shared, weight=3.0),
        hidden=HiddenTerm(shared_projection=shared, embedding=False, weight=0.5),
    )
    objective = Objective(student, losses, cached_knowledge(cache).matches)
    total, terms = objective(batch)
    names = ["shared"] if shared else ["layer_00", "layer_01", "layer_02"]
    assert sorted(objective.projections) == names
    ours = slow(**batch.inputs, output_hidden_states=True).hidden_states
    with torch.no_grad():
        theirs = eager(tiny_teacher_dir)(**batch.inputs, output_hidden_states=True).hidden_states
    expected = {}
    for own, other in ({0: 0} | PAIRS).items():
        projected = objective.projections["shared" if shared else f"layer_{own:02d}"](ours[own])
        errors = [
            (projected[place] - theirs[other][place])[cache.row(row)["hidden"][other]["positions"].tolist()].square()
            for place, row in enumerate(batch.row_ids)
        ]
        expected[own] = torch.cat(errors).mean().item()
    assert terms["embedding"].item() == pytest.approx(expected[0], rel=1e-5)
    assert terms["hidden"].item() == pytest.approx(expected[1] + expected[2], rel=1e-5)
    assert total.item() == pytest.approx(3 * expected[0] + 0.5 * (expected[1] + expected[2]), rel=1e-5)


def test_hidden_states_with_the_embedding_are_the_two_terms_together(written: Written, config: Path) -> None:
    cache = written()
    student = student_of(cached_source(cache.root), config)
    batch = next(iter(KnowledgeLoader(cache, batch_size=12)))
    matches = cached_knowledge(cache).matches
    _, together = Objective(student, Losses(hidden=HiddenTerm()), matches)(batch)
    _, apart = Objective(student, Losses(embedding=EmbeddingTerm(), hidden=HiddenTerm(embedding=False)), matches)(batch)
    assert together["hidden"].item() == pytest.approx(apart["hidden"].item() + apart["embedding"].item(), rel=1e-6)


def test_slices_of_a_batch_add_up_to_its_loss(written: Written, config: Path) -> None:
    cache = written()
    objective = Objective(student_of(cached_source(cache.root), config), ALL, cached_knowledge(cache).matches)
    with torch.no_grad():
        whole = [objective(batch) for batch in KnowledgeLoader(cache, batch_size=12)]
        parts = [objective(batch) for batch in KnowledgeLoader(cache, batch_size=4, accumulation=3)]
    assert len(whole) == 2
    for step, (loss, terms) in enumerate(whole):
        own = parts[3 * step : 3 * step + 3]
        assert sum(part.item() for part, _ in own) == pytest.approx(loss.item(), rel=1e-5)
        for name, term in terms.items():
            assert sum(part[name].item() for _, part in own) == pytest.approx(term.item(), rel=1e-5)


class Shapes(TorchDispatchMode):
    """Notes the shape of every floating tensor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.seen.add(tuple(tensor.shape))
        return result


def test_nothing_of_the_size_of_all_pairs_of_tokens_is_computed(written: Written, config: Path) -> None:
    """Forward and backward: nine kept positions make 9 x 9 scores of four heads, and nothing of L x L."""
    cache = written(tokens=9)
    student = student_of(cached_source(cache.root), config)
    batch = next(batch for batch in KnowledgeLoader(cache, batch_size=24))
    length = batch.inputs["input_ids"].shape[1]
    assert length > 9
    with Shapes() as shapes:
        Objective(student, Losses(attention=AttentionTerm()), cached_knowledge(cache).matches)(batch)[0].backward()
    assert (24, 4, 9, 9) in shapes.seen
    assert not [shape for shape in shapes.seen if shape[-2:] == (length, length) and shape[1:2] == (4,)]


@pytest.mark.parametrize(
    ("kept", "heads", "student_heads"),
    [
        ("all", "match", 4),
        ((3, 1), "match", 4),
        ((3, 1), "match", 2),
        ("all", "mean", 2),
        ("mean", "match", 2),
        ((3, 1), (1, 1), 2),
    ],
)
def test_heads_are_compared_as_the_term_says(
    kept: Any, heads: Any, student_heads: int, written: Written, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    cache = written(heads=kept)
    student, slow = twins(cache, config_file(tmp_path, width=16, num_attention_heads=student_heads), tmp_path)
    batch = next(iter(KnowledgeLoader(cache, batch_size=6)))
    loss, _ = Objective(student, Losses(attention=AttentionTerm(heads=heads)), cached_knowledge(cache).matches)(batch)
    with torch.no_grad(), watched(slow) as ours:
        slow(**batch.inputs)
    teacher = eager(tiny_teacher_dir)
    with torch.no_grad(), watched(teacher) as theirs:
        teacher(**batch.inputs)
    stored = {layer: scores if kept in {"all", "mean"} else scores[:, list(kept)] for layer, scores in theirs.items()}
    expected = 0.0
    for own, other in PAIRS.items():
        first, second = ours[own], stored[other]
        if "mean" in {kept, heads}:
            first, second = first.mean(1, keepdim=True), second.mean(1, keepdim=True)
        elif heads != "match":
            second = second[:, list(heads)]
        elif student_heads == 4 and kept != "all":
            first = first[:, list(kept)]
        errors = []
        for place, row in enumerate(batch.row_ids):
            at = cache.row(row)["attention"][other]["positions"].tolist()
            errors.append((first - second)[place][:, at][:, :, at].square().flatten())
        expected += torch.cat(errors).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_only_a_stage_with_attention_changes_how_the_student_attends(written: Written, config: Path) -> None:
    """And what it changes is neither saved nor left to the next stage."""
    cache = written()
    student = student_of(cached_source(cache.root), config)
    matches = cached_knowledge(cache).matches
    Objective(student, Losses(soft=SoftTerm()), matches)
    assert student.config._attn_implementation == "sdpa"
    Objective(student, ALL, matches)
    assert student.config._attn_implementation == IMPLEMENTATION
    assert IMPLEMENTATION not in student.config.to_json_string()
    Objective(student, Losses(soft=SoftTerm()), matches)
    assert student.config._attn_implementation == "sdpa"


def test_a_student_attends_after_a_stage_as_it_did_before(written: Written, config: Path) -> None:
    cache = written()
    student = student_of(cached_source(cache.root), config)
    student.set_attn_implementation("eager")
    matches = cached_knowledge(cache).matches
    for _ in range(2):
        # The second stage finds what the first has switched.
        Objective(student, ALL, matches)
        assert student.config._attn_implementation == IMPLEMENTATION
    restore_attention(student)
    assert student.config._attn_implementation == "eager"
    Objective(student, ALL, matches)
    Objective(student, Losses(soft=SoftTerm()), matches)
    assert student.config._attn_implementation == "eager"


def test_a_run_that_goes_on_after_a_stage_attends_as_its_student_did(
    written: Written, config: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """Cut off in its second stage, it takes up the student of the first from the disk."""
    root = written().root
    stage: dict[str, Any] = {"epochs": 1, "batch_size": 16}
    last = stage | {"losses": {"soft": {}}, "select": "best"}
    recipe = recipe_of(layers=stage | {"losses": {"attention": {}}}, answers=last)
    seen: list[str] = []

    def score(student: PreTrainedModel) -> dict[str, float]:
        seen.append(student.config._attn_implementation)
        if len(seen) == 1:
            raise OSError("cut off")
        return {"accuracy": 0.5}

    job = fit_of(root, tsv_file, config, recipe, score=score)
    job.student.set_attn_implementation("eager")
    with pytest.raises(OSError, match="cut off"):
        fit(job, tmp_path / "out", CPU)
    assert job.student.config._attn_implementation == "eager"
    fit(job, tmp_path / "out", CPU)
    assert set(seen) == {"eager"}


def test_an_encoder_learns_what_a_classifier_learns(written: Written, config: Path, tmp_path: Path) -> None:
    """Hidden states and attention of a base model count their layers alike."""
    cache = written()
    student, _ = twins(cache, config, tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path / "student").eval()
    batch = next(iter(KnowledgeLoader(cache, batch_size=6)))
    matches = cached_knowledge(cache).matches
    ours, theirs = (Objective(model, ALL, matches, seed=3)(batch) for model in (encoder, student))
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-6)
    assert list(ours[1]) == ["embedding", "hidden", "attention"]


@pytest.mark.parametrize(
    ("losses", "fields", "complaint"),
    [
        (Losses(attention=AttentionTerm()), ("hidden",), "attention scores of layer 2"),
        (Losses(embedding=EmbeddingTerm()), ("attention",), "hidden states of layer 0"),
    ],
)
def test_a_batch_that_lacks_what_a_loss_needs_is_refused(
    losses: Losses, fields: tuple[str, ...], complaint: str, written: Written, config: Path
) -> None:
    cache = written()
    batch = next(iter(KnowledgeLoader(cache, fields=fields)))
    student = student_of(cached_source(cache.root), config)
    with pytest.raises(MismatchError, match=f"learns from {complaint} and the batch has none"):
        Objective(student, losses, cached_knowledge(cache).matches)(batch)
    with pytest.raises(MismatchError, match="no pair of layers is given"):
        Objective(student, losses, Matches({"hidden": (LayerPair(1, 2),)}))(batch)


def test_a_distilbert_shows_its_attention_too(written: Written, tmp_path: Path) -> None:
    cache = written()
    config = config_file(tmp_path, model_type="distilbert", dim=16, n_layers=2, num_attention_heads=4, hidden_dim=32)
    student = student_of(cached_source(cache.root), config)
    batch = next(iter(KnowledgeLoader(cache, batch_size=6)))
    objective = Objective(student, ALL, cached_knowledge(cache).matches)
    loss, terms = objective(batch)
    loss.backward()
    assert all(torch.isfinite(term) and term > 0 for term in terms.values())
    assert all(isinstance(module, nn.Linear) for module in objective.projections.values())
