"""Gradient checkpointing: less is kept for the way back, and losses and gradients stay what they are."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from language_models import FAMILIES, NUM_IDS, language_model, llama
from safetensors.torch import load_file
from spoken import Rows, drawn_cache
from tiny import config_file, student_of
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.selection.depth import LayerPair
from trainer.batch import Batch, HiddenTarget, TopTarget
from trainer.cli import main as hsktrain
from trainer.loading import KnowledgeLoader
from trainer.losses.matches import Matches
from trainer.recipe import AttentionTerm, EmbeddingTerm, HiddenTerm, LabelTerm, Losses, SoftTerm
from trainer.source.knowledge import cached_knowledge
from trainer.source.objective import Objective
from trainer.source.source import cached_source
from trainer.student.create import seeded
from trainer.student.recomputation import recompute_layers

LENGTHS, KEPT = (12, 7, 20, 9), (2, 5, 9, 12, 14)
DROPOUT = {"gpt2": {}, "llama": {"attention_dropout": 0.1}}


def language_batch(packed: bool) -> Batch:
    """Rows in sequences of their own with padding, or all in one."""
    draw = torch.Generator().manual_seed(3)
    width = sum(LENGTHS) if packed else max(LENGTHS)
    ids = torch.randint(3, NUM_IDS, (1 if packed else len(LENGTHS), width), generator=draw)
    if packed:
        told = {"position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None]}
        places = told["position_ids"].roll(-1) != 0
    else:
        mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
        told, places = {"attention_mask": mask.long()}, torch.arange(width) < torch.tensor(LENGTHS)[:, None] - 1
    index = places.flatten().nonzero()[:, 0]
    logp = torch.randn(len(index), 9, generator=draw).log_softmax(-1)[:, :8]
    top_ids = torch.rand(len(index), NUM_IDS, generator=draw).argsort(-1)[:, :8]
    values = torch.randn(len(KEPT), 32, generator=draw)
    targets = {
        "vocabulary": TopTarget(index, torch.zeros(len(index)), torch.zeros(len(index)), top_ids, logp),
        "hidden": {2: HiddenTarget(index[list(KEPT)], values, None, 32)},
    }
    return Batch(
        {"input_ids": ids} | told,
        None,
        targets,
        num_rows=len(LENGTHS),
        row_ids=tuple(range(len(LENGTHS))),
        totals={"inputs": len(index), "vocabulary": len(index), "hidden": len(KEPT)},
        answered=index,
    )


def stepped(objective: Objective, batch: Batch, bf16: bool = False) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss, gradients by name, and bytes that are kept for the way back."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    objective.train().zero_grad()
    with seeded(5):
        own = {one.data_ptr() for one in objective.parameters()}
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            loss, _ = objective(batch)
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad.clone() for name, one in objective.named_parameters() if one.grad is not None}
    return loss.detach(), gradients, sum(size for place, size in kept.items() if place not in own)


def check(objective: Objective, batch: Batch, bf16: bool = False) -> dict[str, Tensor]:
    """See that a step with recomputation is the step without, to the last bit, and keeps less; returns gradients."""
    loss, gradients, kept = stepped(objective, batch, bf16)
    recompute_layers(objective.student, "small")
    again, same, fewer = stepped(objective, batch, bf16)
    assert torch.equal(loss, again)
    assert gradients.keys() == same.keys()
    assert all(torch.equal(one, same[name]) for name, one in gradients.items())
    assert fewer < kept / 2
    return gradients


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_language_models_gradients_are_the_same_to_the_last_bit(family: str, packed: bool, bf16: bool) -> None:
    """With dropout, next tokens, the text and hidden states, whose targets a hook reads."""
    with seeded(0):
        model = FAMILIES[family](**DROPOUT.get(family, {}))
    losses = Losses.model_validate({"next": {}, "gold": {"weight": 0.5}, "hidden": {"weight": 2.0}})
    check(Objective(model, losses, Matches({"hidden": (LayerPair(2, 2),)})), language_batch(packed), bf16)


def test_frozen_embeddings_stay_without_gradients() -> None:
    with seeded(0):
        model = llama(tie_word_embeddings=False)
    embeddings = model.get_input_embeddings().requires_grad_(False)
    gradients = check(Objective(model, Losses.model_validate({"next": {}})), language_batch(False))
    assert len(gradients) == sum(1 for _ in model.parameters()) - 1
    assert not embeddings(torch.tensor([3])).requires_grad


def test_hidden_states_and_attention_of_a_classifier_are_learned_through_it(
    written: Callable[..., Cache], tmp_path: Path
) -> None:
    cache = written()
    student = student_of(cached_source(cache.root), config_file(tmp_path, width=16, num_attention_heads=4))
    losses = Losses(
        embedding=EmbeddingTerm(),
        hidden=HiddenTerm(embedding=False),
        attention=AttentionTerm(),
        soft=SoftTerm(),
        label=LabelTerm(),
    )
    objective = Objective(student, losses, cached_knowledge(cache).matches)
    batch = next(iter(KnowledgeLoader(cache, batch_size=12)))
    # Queries and keys that are compared stay there, so that little is saved.
    loss, gradients, _ = stepped(objective, batch)
    recompute_layers(student, "small")
    again, same, _ = stepped(objective, batch)
    assert torch.equal(loss, again)
    assert all(torch.equal(one, same[name]) for name, one in gradients.items())


def test_a_student_without_it_is_refused() -> None:
    model = llama()

    class Plain(type(model)):  # type: ignore[misc]
        supports_gradient_checkpointing = False

    model.__class__ = Plain
    with pytest.raises(MismatchError, match=r"small \(Plain\) has no gradient checkpointing; leave --gradient-check"):
        recompute_layers(model, "small")


def test_fit_takes_one_more_forward_pass_through_the_layers(tmp_path: Path) -> None:
    rows: Rows = [[3 + (row * 7 + place) % 200 for place in range(9 + row)] for row in range(6)]
    cache, student = drawn_cache(tmp_path / "cache", rows), language_model(tmp_path / "student", "gpt2")
    passes: Counter[str] = Counter()

    def fit(name: str, *more: str) -> dict[str, Tensor]:
        given = ("fit", "--cache", cache.root, "--student", student, "--recipe", "lm", "--device", "cpu")
        asked = ("--set", "prediction.batch_size=4", "--pack", 40, "--out", tmp_path / name, *more)
        # Within the layers.
        count = register_module_forward_pre_hook(lambda module, *_: passes.update([name] * isinstance(module, GPT2MLP)))
        try:
            done = CliRunner().invoke(hsktrain, [str(one) for one in (*given, *asked)], catch_exceptions=False)
        finally:
            count.remove()
        assert done.exit_code == 0, done.output
        return load_file(tmp_path / name / "model.safetensors")

    plain, again = fit("plain"), fit("again", "--gradient-checkpointing")
    assert passes["again"] > passes["plain"]
    assert plain.keys() == again.keys()
    assert all(torch.equal(one, again[name]) for name, one in plain.items())
