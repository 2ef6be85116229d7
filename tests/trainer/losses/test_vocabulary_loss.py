"""Losses on next tokens against dense tensors in float64, the exact cases of their definitions, and PyTorch's own."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hskcache.classes import NO_CLASS
from hskcache.errors import MismatchError
from trainer.losses import DrawnTokens, GoldTokens, OutputHead, TeacherStates, TopTokens, vocabulary_loss

T, D, V, GLOBAL = 7, 5, 11, 9
NONE = -math.inf
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")
HEADS = {"plain": {}, "scaled": {"scale": 0.3}, "capped": {"scale": 0.5, "softcap": 2.0}}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def student(**settings: Any) -> tuple[Tensor, OutputHead]:
    """Final states and a head that want gradients."""
    weight, bias = normal(V, D, seed=1).requires_grad_(), normal(V, seed=2).requires_grad_()
    return normal(T, D).requires_grad_(), OutputHead(weight, bias, **settings)


def known(divergence: str = "forward_kl") -> dict[str, Any]:
    """Knowledge of every sort, with positions that have none of it and padding whose ids are ids of other entries."""
    logp, ids = normal(T, V, seed=3).log_softmax(1).topk(4, 1)
    logp[3, 2:], ids[3, 2:] = NONE, ids[3, :1]
    logp[5], ids[5] = NONE, 0
    draws = torch.randint(V, (T, 6), generator=torch.Generator().manual_seed(4))
    counts = F.one_hot(draws, V).sum(1)
    counts[1] = 0
    targets = torch.tensor([0, 3, NO_CLASS, int(ids[3, 0]), 10, 1, 7])
    is_known = torch.arange(T) != 4
    states = normal(T, 3, seed=5)
    states[4] = math.nan
    head = OutputHead(normal(V, 3, seed=6), softcap=3.0)
    teacher = TeacherStates(states, head, divergence, 2.0, True, 0.3, is_known, weight=0.9)  # type: ignore[arg-type]
    return {
        "gold": GoldTokens(targets, weight=0.7),
        "top": TopTokens(ids, logp, weight=1.3),
        "draws": DrawnTokens(torch.arange(V).expand(T, V), counts, weight=0.4),
        "head": teacher,
    }


def dense_logits(states: Tensor, head: OutputHead) -> Tensor:
    logits = states @ head.weight_VD.T * 1.0
    logits = (logits if head.bias_V is None else logits + head.bias_V) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def dense(states: Tensor, head: OutputHead, terms: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same terms, each from its definition over the whole vocabulary, summed and divided by GLOBAL."""
    logits = dense_logits(states, head)
    logq = logits.log_softmax(1)
    found = {}
    for name, term in terms.items():
        if isinstance(term, GoldTokens):
            found[name] = F.cross_entropy(logits, term.targets_T, reduction="sum", ignore_index=NO_CLASS)
        elif isinstance(term, DrawnTokens):
            counts = term.counts_TK.double()
            shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
            found[name] = -(shares * logq.gather(1, term.ids_TK)).sum()
        elif isinstance(term, TopTokens):
            found[name] = sum(
                (lumped(*row) for row in zip(logq, term.ids_TK, term.logp_TK, strict=True)), logq.sum() * 0
            )
        else:
            found[name] = diverged(term, logits)
    return {name: value / GLOBAL for name, value in found.items()}


def lumped(logq: Tensor, ids: Tensor, logp: Tensor) -> Tensor:
    """KL of the kept ids of one position and their tail."""
    kept = logp > NONE
    if not kept.any():
        return logq.sum() * 0
    p, q = logp[kept].double().exp(), logq[ids[kept]].exp()
    return (p * (p / q).log()).sum() + (1 - p.sum()) * ((1 - p.sum()) / (1 - q.sum())).log()


def diverged(term: TeacherStates, logits: Tensor) -> Tensor:
    keep = slice(None) if term.is_known_T is None else term.is_known_T
    p = (dense_logits(term.states_TD[keep], term.head) / term.temperature).softmax(1)
    q = (logits[keep] / term.temperature).softmax(1)
    m = term.share * p + (1 - term.share) * q
    from_p, from_q = (p * (p / m).log()).sum(), (q * (q / m).log()).sum()
    values = {
        "forward_kl": (p * (p / q).log()).sum(),
        "reverse_kl": (q * (q / p).log()).sum(),
        "jsd": term.share * from_p + (1 - term.share) * from_q,
    }
    return values[term.divergence] * (term.temperature**2 if term.temperature_squared else 1)


def gradients(total: Tensor, states: Tensor, head: OutputHead) -> tuple[Tensor, ...]:
    wanted = [one for one in (states, head.weight_VD, head.bias_V) if one is not None]
    return torch.autograd.grad(total, wanted)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
def test_terms_and_gradients_are_those_of_dense_tensors(settings: dict[str, float], divergence: str) -> None:
    states, head = student(**settings)
    terms = known(divergence)
    loss = vocabulary_loss(states, head, terms, GLOBAL, num_at_once=3)
    expected = dense(states, head, terms)
    total = sum((terms[name].weight * value for name, value in expected.items()), torch.zeros(()))
    torch.testing.assert_close(loss.terms, {name: value.detach() for name, value in expected.items()})
    torch.testing.assert_close(loss.total, total)
    torch.testing.assert_close(gradients(loss.total, states, head), gradients(total, states, head))


@pytest.mark.parametrize("name", ["gold", "top", "draws", "head"])
def test_each_term_alone_is_that_of_dense_tensors(name: str) -> None:
    states, head = student()
    terms = {name: replace(known()[name], weight=1.0)}
    total, expected = vocabulary_loss(states, head, terms, GLOBAL).total, dense(states, head, terms)[name]
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients(total, states, head), gradients(expected, states, head))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_are_those_of_finite_differences(divergence: str) -> None:
    states, head = student()

    def total(*given: Tensor) -> Tensor:
        return vocabulary_loss(given[0], OutputHead(*given[1:], 0.5, 2.0), known(divergence), GLOBAL, 3).total

    assert torch.autograd.gradcheck(total, (states, head.weight_VD, head.bias_V), fast_mode=True)


THREE = torch.tensor([[0.5, 0.3, 0.2]])


@pytest.mark.parametrize(("kept", "expected"), [(1, 0.058892), (2, 0.068959), (3, 0.068959)])
def test_a_tail_of_one_token_is_that_token_and_a_longer_one_is_a_bucket(kept: int, expected: float) -> None:
    uniform = OutputHead(torch.zeros(3, 1))
    top = TopTokens(torch.arange(kept)[None], THREE[:, :kept].log())
    full = TeacherStates(torch.ones(1, 1), OutputHead(THREE.log().T))
    loss = vocabulary_loss(torch.ones(1, 1), uniform, {"top": top, "full": full}, 1)
    assert loss.terms["top"].item() == pytest.approx(expected, abs=1e-6)
    assert loss.terms["full"].item() == pytest.approx(0.068959, abs=1e-6)


def test_a_one_hot_teacher_gives_cross_entropy() -> None:
    logits, targets = normal(T, V, dtype=torch.float32).requires_grad_(), torch.arange(T)
    expected = F.cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(expected, logits)
    column = targets[:, None]
    # A teacher whose head rules out whatever is not the target.
    certain = OutputHead(torch.where(torch.eye(V, T).bool(), 0.0, -1e9))
    terms = {
        "gold": GoldTokens(targets),
        "top": TopTokens(column, torch.zeros(T, 1)),
        "padded": DrawnTokens(torch.cat([column, column], 1), torch.tensor([[50, 0]]).expand(T, 2)),
        "head": TeacherStates(torch.eye(T), certain),
    }
    for name, term in terms.items():
        loss = vocabulary_loss(logits, OutputHead(torch.eye(V)), {name: term}, T)
        torch.testing.assert_close(loss.total, expected, rtol=3e-7, atol=0)
        torch.testing.assert_close(torch.autograd.grad(loss.total, logits)[0], gradient, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradient, (logits.softmax(1) - F.one_hot(targets, V)).detach() / T)


def test_the_mean_gradient_of_draws_is_that_of_full_kl() -> None:
    """V = 50, n = 50, over 2,000 seeds within four standard errors in every coordinate."""
    size, num_seeds = 50, 2000
    p, logits = (2 * normal(size)).softmax(0), normal(size, seed=1)
    draws = p.multinomial(size * num_seeds, replacement=True, generator=torch.Generator().manual_seed(2))
    counts = F.one_hot(draws.view(num_seeds, size), size).sum(1)
    states = logits.expand(num_seeds, size).clone().requires_grad_()
    term = DrawnTokens(torch.arange(size).expand(num_seeds, size), counts)
    loss = vocabulary_loss(states, OutputHead(torch.eye(size, dtype=torch.float64)), {"draws": term}, 1)
    (of_seeds,) = torch.autograd.grad(loss.total, states)
    error = of_seeds.std(0) / num_seeds**0.5
    assert (error > 0).all()
    assert ((of_seeds.mean(0) - (logits.softmax(0) - p)).abs() <= 4 * error).all()


@pytest.mark.parametrize("num_at_once", [1, 2, 7, 100])
def test_slices_add_up_however_they_are_cut_into_chunks(num_at_once: int) -> None:
    states, head = student(**HEADS["capped"])
    terms = known("jsd")
    whole = vocabulary_loss(states, head, terms, GLOBAL).total
    cut = [slice(0, 3), slice(3, 3), slice(3, T)]
    parts = [
        vocabulary_loss(
            states[rows], head, {name: sliced(term, rows) for name, term in terms.items()}, GLOBAL, num_at_once
        ).total
        for rows in cut
    ]
    total = torch.stack(parts).sum()
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(gradients(total, states, head), gradients(whole, states, head))


def sliced(term: Any, rows: slice) -> Any:
    return replace(term, **{name: value[rows] for name, value in vars(term).items() if isinstance(value, Tensor)})


def test_a_slice_without_positions_is_zero_and_so_are_its_gradients() -> None:
    states, head = student()
    terms = {name: sliced(term, slice(0, 0)) for name, term in known().items()}
    loss = vocabulary_loss(states[:0], head, terms, 0)
    assert (loss.total.item(), {value.item() for value in loss.terms.values()}) == (0.0, {0.0})
    assert not any(gradient.any() for gradient in gradients(loss.total, states, head))


def test_a_position_of_which_nothing_is_known_adds_nothing() -> None:
    """Also where no entry is stored at all, and whatever stands in the place of what is not known."""
    states, head = student()
    none = {
        "gold": GoldTokens(torch.full((T,), NO_CLASS)),
        "top": TopTokens(torch.full((T, 2), 3), torch.full((T, 2), NONE)),
        "draws": DrawnTokens(torch.full((T, 2), 3), torch.zeros(T, 2, dtype=torch.int64)),
        "head": replace(known()["head"], is_known_T=torch.zeros(T, dtype=torch.bool)),
    }
    empty = torch.empty(T, 0, dtype=torch.int64)
    without = {"top": TopTokens(empty, empty.double()), "draws": DrawnTokens(empty, empty)}
    for terms in (none, without):
        loss = vocabulary_loss(states, head, terms, GLOBAL)
        assert {value.item() for value in loss.terms.values()} == {0.0}
        assert not any(gradient.any() for gradient in gradients(loss.total, states, head))


@pytest.mark.parametrize("gap", [2.0, 20.0, 60.0, 300.0])
@pytest.mark.parametrize("p_tail", [0.3, 1e-6, 0.0])
def test_a_small_tail_of_either_side_is_exact_in_float32(gap: float, p_tail: float) -> None:
    """The student's kept logits are above the others by ``gap``: at 20 its tail is 1e-8, at 300 below any float32."""
    logits = torch.cat([normal(1, 2) + gap, normal(1, 6, seed=1)], 1)
    stored = (torch.tensor([[0.75, 0.25]], dtype=torch.float64).log() + math.log1p(-p_tail)).float()
    top = {"top": TopTokens(torch.tensor([[0, 1]]), stored)}
    states = logits.float().requires_grad_()
    loss = vocabulary_loss(states, OutputHead(torch.eye(8)), top, 1).total
    (gradient,) = torch.autograd.grad(loss, states)
    # From the definition, in float64: sums over the tail alone, no difference of numbers near 1.
    logq, tail_logq = logits.log_softmax(1), logits[:, 2:].logsumexp(1) - logits.logsumexp(1)
    p = stored.double().exp()
    p_tail = max(0.0, 1 - p.sum().item())
    tail = p_tail * (math.log(p_tail) - tail_logq) if p_tail else torch.zeros(1)
    value = (p * (p.log() - logq[:, :2])).sum() + tail
    expected = torch.cat([logq[:, :2].exp() - p, logq[:, 2:].exp() - p_tail * logits[:, 2:].softmax(1)], 1)
    # The teacher's tail is known but for the rounding of numbers near 1, and costs the more the further off it is.
    assert loss.item() == pytest.approx(value.item(), rel=2e-6, abs=1e-6 + 1e-7 * gap)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=2e-7)


def test_probabilities_that_add_up_to_more_than_one_by_rounding_count_as_one() -> None:
    """Log-probabilities of float16 that cover the vocabulary, or all of it but one id."""
    logp = (3 * normal(500, 8)).log_softmax(1).half()
    excess = logp.double().exp().sum(1)
    assert excess.max() > 1 + 1e-5
    states = logp.float().requires_grad_()
    head, most = OutputHead(torch.eye(8)), TopTokens(torch.arange(7).expand(500, 7), logp[:, :7].float())
    loss = vocabulary_loss(states, head, {"top": most}, 500).total
    (gradient,) = torch.autograd.grad(loss, states)
    assert 0 <= loss.item() < 1e-5
    assert gradient.abs().max() < 2e-3 / 500
    torch.testing.assert_close(gradient.sum(1), torch.zeros(500), atol=1e-9, rtol=0)
    p = logp.double().exp() / excess.clamp_min(1)[:, None]
    states = torch.zeros(500, 8, requires_grad=True)
    whole = TopTokens(torch.arange(8).expand(500, 8), logp.float())
    loss = vocabulary_loss(states, head, {"top": whole}, 1).total
    (gradient,) = torch.autograd.grad(loss, states)
    assert loss.item() == pytest.approx((p * (p.log() + math.log(8))).sum().item(), rel=1e-5)
    # What is missing to 1 is nowhere, and moves nothing.
    torch.testing.assert_close(gradient.double(), 0.125 - p, atol=1e-6, rtol=0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_ids_that_both_heads_rule_out_have_no_part(divergence: str) -> None:
    bias = torch.tensor([0.0] * 6 + [NONE] * 2)
    states, teacher = normal(4, 8, dtype=torch.float32), normal(4, 8, seed=1, dtype=torch.float32)
    losses = []
    for size in (8, 6):
        head = OutputHead(torch.eye(8)[:size], bias[:size])
        term = TeacherStates(teacher, head, divergence)  # type: ignore[arg-type]
        given = states.clone().requires_grad_()
        terms = {
            "head": term,
            "gold": GoldTokens(torch.arange(4)),
            "top": TopTokens(torch.tensor([[5]] * 4), bias[:1].expand(4, 1)),
        }
        loss = vocabulary_loss(given, head, terms, 4)
        losses.append((loss.total.detach(), *loss.terms.values(), torch.autograd.grad(loss.total, given)[0][:, :6]))
    torch.testing.assert_close(losses[0], losses[1])
    assert all(value.isfinite().all() for value in losses[0])


def test_products_are_of_the_heads_dtype_and_sums_of_float32() -> None:
    states, weight = normal(300, 16, dtype=torch.float32).bfloat16(), (normal(64, 16, seed=1) / 4).bfloat16()
    targets = torch.arange(300) % 64
    logits = (states @ weight.T).float()
    expected = F.cross_entropy(logits, targets)
    states.requires_grad_()
    weight.requires_grad_()
    loss = vocabulary_loss(states, OutputHead(weight), {"gold": GoldTokens(targets)}, 300, num_at_once=2)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert states.grad is not None
    assert weight.grad is not None
    assert (states.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    on_logits = ((logits.softmax(1) - F.one_hot(targets, 64)) / 300).double()
    whole = on_logits.T @ states.detach().double()
    # One rounding of 150 chunks' sum, and those of what was multiplied.
    assert (weight.grad.double() - whole).norm() < 4e-3 * whole.norm()


def test_autocast_multiplies_in_its_dtype_and_gives_parameters_their_own() -> None:
    states, weight = normal(20, 16, dtype=torch.float32), normal(64, 16, seed=1, dtype=torch.float32)
    terms = {"gold": GoldTokens(torch.arange(20)), "head": TeacherStates(states, OutputHead(weight.flip(0)))}
    found = []
    for enabled in (True, False):
        dtype = torch.float32 if enabled else torch.bfloat16
        given, head = states.to(dtype).requires_grad_(), OutputHead(weight.to(dtype).requires_grad_())
        known = terms if enabled else {**terms, "head": TeacherStates(states, OutputHead(weight.flip(0).bfloat16()))}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            total = vocabulary_loss(given, head, known, 20, num_at_once=6).total
        made = torch.autograd.grad(total, (given, head.weight_VD))
        assert {one.dtype for one in made} == {dtype}
        found.append((total.detach(), *(one.float() for one in made)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=1e-5)
    assert found[0][0] == found[1][0]


class Watched(TorchDispatchMode):
    """Number of products of matrices, and the most values that any operation has made."""

    num_products = num_values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.num_products += func._schema.name in {"aten::mm", "aten::addmm", "aten::addmm_"}
        for one in made if isinstance(made, tuple) else (made,):
            if isinstance(one, Tensor):
                self.num_values = max(self.num_values, one.numel())
        return made


def num_products(terms: dict[str, Any], *, states: bool = True, weight: bool = True) -> int:
    given, head = student()
    given.requires_grad_(states)
    head = OutputHead(head.weight_VD.detach().requires_grad_(weight))
    with Watched() as watched:
        total = vocabulary_loss(given, head, terms, GLOBAL).total
        if total.requires_grad:
            total.backward()
    return watched.num_products


def test_terms_share_one_product_and_what_is_frozen_costs_none() -> None:
    some = {name: term for name, term in known().items() if name != "head"}
    for terms in (some, {"gold": some["gold"]}):
        assert num_products(terms) == 3
        assert num_products(terms, weight=False) == 2
        assert num_products(terms, states=False) == 2
        assert num_products(terms, states=False, weight=False) == 1
        with torch.no_grad():
            assert num_products(terms) == 1
    assert num_products(known()) == 4, "one more with the teacher's head"


def test_no_more_logits_than_a_chunk_ever_exist() -> None:
    num, width, size, chunk = 64, 4, 500, 5
    states, head = normal(num, width).requires_grad_(), OutputHead(normal(size, width).requires_grad_())
    logp, ids = normal(num, size).log_softmax(1).topk(6, 1)
    terms = {
        "gold": GoldTokens(ids[:, 0]),
        "top": TopTokens(ids, logp),
        "head": TeacherStates(states.detach(), OutputHead(normal(size, width, seed=1)), "jsd"),
    }
    with Watched() as watched:
        vocabulary_loss(states, head, terms, num, chunk).total.backward()
    assert watched.num_values == chunk * size


def test_a_head_that_is_the_embeddings_gets_both_gradients() -> None:
    ids, targets = torch.tensor([1, 4, 2]), torch.tensor([4, 2, 0])
    both = []
    for is_dense in (True, False):
        table = normal(V, D).requires_grad_()
        states = torch.tanh(F.embedding(ids, table))
        if is_dense:
            loss = F.cross_entropy(states @ table.T, targets)
        else:
            loss = vocabulary_loss(states, OutputHead(table), {"gold": GoldTokens(targets)}, 3).total
        both.append(torch.autograd.grad(loss, table)[0])
    torch.testing.assert_close(both[1], both[0])


def test_a_graph_that_is_retained_gives_the_same_again() -> None:
    states, head = student()
    total = vocabulary_loss(states, head, known(), GLOBAL).total
    first = torch.autograd.grad(total, (states, head.weight_VD), retain_graph=True)
    kept = [one.clone() for one in first]
    second = torch.autograd.grad(3 * total, (states, head.weight_VD))
    torch.testing.assert_close(second, tuple(3 * one for one in kept))
    assert all(torch.equal(*pair) for pair in zip(first, kept, strict=True))


def test_what_does_not_belong_together_is_told() -> None:
    states, head = student()
    terms = known()
    with pytest.raises(MismatchError, match="the term gold knows of 7 positions and the student has states at 6"):
        vocabulary_loss(states[:6], head, {"gold": terms["gold"]}, GLOBAL)
    other = TeacherStates(terms["head"].states_TD, OutputHead(normal(V + 1, 3)))
    with pytest.raises(MismatchError, match="a vocabulary of 12 ids and the student one of 11"):
        vocabulary_loss(states, head, {"head": other}, GLOBAL)
    with pytest.raises(MismatchError, match="has no term"):
        vocabulary_loss(states, head, {}, GLOBAL)
    with pytest.raises(MismatchError, match="give one"):
        vocabulary_loss(states, head, {"one": terms["top"], "other": terms["top"]}, GLOBAL)


@pytest.mark.parametrize("family", ["Gemma2", "Cohere", "Granite", "GPT2"])
def test_heads_of_real_models_are_these(family: str) -> None:
    """Cross-entropy of their own logits, with the cap, the scale or the division that their configuration has."""
    import transformers

    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    own = {
        "Gemma2": {"final_logit_softcapping": 0.5},
        "Cohere": {"logit_scale": 0.25},
        "Granite": {"logits_scaling": 8.0},
    }
    config = getattr(transformers, f"{family}Config")(**shape, **heads, **own.get(family, {}))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(config).eval()
    softcap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    ids = torch.arange(3, 15)[None]
    output = model(input_ids=ids, output_hidden_states=True)
    head = OutputHead(model.get_output_embeddings().weight, None, scale, softcap)
    terms = {"gold": GoldTokens(ids[0, 1:])}
    loss = vocabulary_loss(output.hidden_states[-1][0, :-1], head, terms, ids.shape[1] - 1)
    torch.testing.assert_close(loss.total, F.cross_entropy(output.logits[0, :-1], ids[0, 1:]))
