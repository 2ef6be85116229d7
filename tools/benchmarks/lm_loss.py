"""Time and memory of losses on next tokens: in chunks, and on all logits at once."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.measure import environment, most_memory, peak_alone, ratio, synchronise, take_turns
from hskcache import units

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.losses.next_tokens import NextTokens

CASES = ("gold", "gold and top", "draws", "gold and head")
CHUNKS, DENSE = "chunks", "dense"


class Inputs:
    """Random states, heads and knowledge of a number of positions."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        import torch

        size, width, num = given["vocabulary"], given["width"], given["tokens"]
        draw = torch.Generator(given["device"]).manual_seed(0)
        shared = {"generator": draw, "device": given["device"]}
        dtype = torch.bfloat16 if given["bf16"] else torch.float32
        self.num = num
        self.states = torch.randn(num, width, **shared).to(dtype).requires_grad_()
        self.weight = torch.randn(size, width, **shared).mul_(width**-0.5).to(dtype).requires_grad_()
        self.teacher_states = torch.randn(num, width, **shared).to(dtype)
        self.teacher_weight = torch.randn(size, width, **shared).mul_(2 * width**-0.5).to(dtype)
        self.targets = torch.randint(size, (num,), **shared)
        # One block of ids each, so that none comes twice.
        block = size // given["kept"]
        places = torch.randint(block, (num, given["kept"]), **shared)
        self.ids = places + block * torch.arange(given["kept"], device=given["device"])
        self.logp = torch.randn(num, given["kept"] + 1, **shared).mul_(3).log_softmax(1)[:, :-1].contiguous()
        self.counts = torch.randint(4, (num, given["kept"]), **shared)

    def backward(self, loss: "Tensor") -> None:
        """Compute the gradients of states and head."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.states.grad = self.weight.grad = None


def in_chunks(case: str, inputs: Inputs) -> None:
    """A step of ours."""
    from trainer.losses import DrawnTokens, GoldTokens, OutputHead, TeacherStates, TopTokens, vocabulary_loss

    terms: Mapping[str, NextTokens] = {
        "gold": GoldTokens(inputs.targets),
        "top": TopTokens(inputs.ids, inputs.logp),
        "draws": DrawnTokens(inputs.ids, inputs.counts),
        "head": TeacherStates(inputs.teacher_states, OutputHead(inputs.teacher_weight)),
    }
    wanted = {name: terms[name] for name in case.split(" and ")}
    inputs.backward(vocabulary_loss(inputs.states, OutputHead(inputs.weight), wanted, inputs.num).total)


def dense(case: str, inputs: Inputs) -> None:
    """The same with all logits, as PyTorch's own functions have it."""
    import torch
    from torch.nn import functional as F

    logits = (inputs.states @ inputs.weight.T).float()
    wanted, losses = case.split(" and "), []
    if "gold" in wanted:
        losses.append(F.cross_entropy(logits, inputs.targets))
    if "draws" in wanted:
        shares = inputs.counts / inputs.counts.sum(1, keepdim=True)
        losses.append(-(shares * logits.log_softmax(1).gather(1, inputs.ids)).sum() / inputs.num)
    if "top" in wanted:
        logq = logits.log_softmax(1).gather(1, inputs.ids)
        tails = [torch.log1p(-side.exp().sum(1)) for side in (inputs.logp, logq)]
        kept = F.kl_div(logq, inputs.logp, reduction="sum", log_target=True)
        losses.append((kept + F.kl_div(tails[1], tails[0], reduction="sum", log_target=True)) / inputs.num)
    if "head" in wanted:
        teacher = (inputs.teacher_states @ inputs.teacher_weight.T).float().log_softmax(1)
        losses.append(F.kl_div(logits.log_softmax(1), teacher, reduction="batchmean", log_target=True))
    inputs.backward(torch.stack(losses).sum())


SIDES: Mapping[str, Callable[[str, Inputs], None]] = {CHUNKS: in_chunks, DENSE: dense}


def peak(side: str, case: str, given: Mapping[str, Any]) -> int:
    """Most bytes that one step takes beyond its inputs: of the device, or resident in this process."""
    # What is made at first use belongs to no step.
    SIDES[side](case, Inputs({**given, "tokens": 8}))
    inputs = Inputs(given)
    return most_memory(lambda: SIDES[side](case, inputs), given["device"])


@click.command()
@options.count("--tokens", 4096, "Positions with a target.")
@options.count("--vocabulary", 49_152, "Ids.", at_least=100)
@options.count("--width", 576, "Of the final states of both models.")
@options.count("--kept", 50, "Ids that a position has of the teacher.")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="One alone.  [default: all]")
@click.option("--bf16", is_flag=True, help="States and heads in bfloat16.")
@options.repetitions(5)
@options.clock
@options.resolved_device
@options.as_json
def main(as_json: bool, cases: tuple[str, ...], clock: str, repetitions: int, **given: Any) -> None:
    """Time losses on next tokens with the gradients of states and head, ours and on all logits, alternating in one run.

    Memory is what a step takes at most beyond its inputs, each side in a process of its own.
    """
    about = environment(given["device"])
    peaks = {case: {side: peak_alone("lm_loss", side, case, given) for side in SIDES} for case in cases or CASES}
    inputs = Inputs(given)

    def step(side: str, case: str) -> None:
        SIDES[side](case, inputs)
        synchronise(given["device"])

    rows, targets, facts = [], [], dict[str, Any]()
    for case, of_case in peaks.items():
        times = take_turns(case, {side: partial(step, side, case) for side in SIDES}, repetitions, clock=clock)
        share = of_case[CHUNKS] / of_case[DENSE]
        memory = [units.human_bytes(of_case[side]) for side in SIDES]
        seconds = [f"{times.median(side):.2f}" for side in SIDES]
        rows.append([case, *seconds, ratio(times, CHUNKS, DENSE), *memory, f"{share:.3f}"])
        targets.append(report.Target(f"time of chunks / dense, {case}", times.ratio(CHUNKS, DENSE), 1.1))
        targets.append(report.Target(f"memory of chunks / dense, {case}", share, 0.2))
        facts[case] = {**times.facts(), "peak_bytes": of_case}
    header = ("terms", "chunks, s", "dense, s", "ratio (quartiles)", "chunks", "dense", "ratio")
    title = (
        f"{given['tokens']:,} positions x {given['vocabulary']:,} ids, states of {given['width']}, {about['device']}"
    )
    facts |= {"settings": given | {"clock": clock}, "environment": about}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
