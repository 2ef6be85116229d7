"""Logits of a whole data set: rows in batches of similar length, in row order again in the end.

Dimension letters as in hskcache.spec: N rows, B batch, L positions of a row, C classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.counted import counted
from hskcache.encoder import num_positions, takes_token_types
from hskcache.errors import MismatchError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from hskcache.text import TokenizedRows
    from hskcache.text.windows import Windowing

_CPU_BATCH_TOKENS = 64
"""Tokens that a CPU could compute in the time which a batch takes beside that of its tokens."""

EVEN_TOKENS = 512
"""Tokens up to which a row counts for as many as it has."""


def row_costs(lengths: "NDArray[Any]") -> "NDArray[np.int64]":
    """Tokens that rows count for in a budget: their own and, of rows beyond 512, as many times more as they are longer.

    Attention is a table of L by L numbers where it is looked at, or where a batch has padding to mask. So counted,
    those of a batch are together no larger than those of as many tokens in rows of 512. ``lengths``: [N]. Longer rows
    cost more, in whole numbers.
    """
    tokens: NDArray[np.int64] = lengths.astype(np.int64)
    costs: NDArray[np.int64] = np.maximum(tokens, -(-tokens * tokens // EVEN_TOKENS))
    return costs


def length_batches(lengths: "NDArray[Any]", token_budget: int) -> Iterator["NDArray[np.int64]"]:
    """Row numbers in batches of similar length, longest first, so that memory runs out at once or never.

    ``lengths``: [N] tokens of each row. ``token_budget``: padded tokens of one batch at most; a row longer than that is
    a batch of its own.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        stop = start + max(1, token_budget // longest)
        yield order[start:stop]
        start = stop


def least_padded_batches(lengths: "NDArray[Any]", token_budget: int, device_type: str) -> Iterator["NDArray[np.int64]"]:
    """Row numbers in the batches of similar length that take a model the least time, longest first.

    A batch takes the time of its padded tokens and some beside. On a CPU that is little, so batches are many and hardly
    longer than their rows. Another device is not busy in a batch that is not full: there batches are as few as
    :func:`length_batches` makes them, and of those the least padded.

    Args:
        lengths: [N] tokens of each row.
        token_budget: padded tokens of one batch at most; a row longer than that is a batch of its own.
        device_type: type of the device that the model runs on.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    beside = min(_CPU_BATCH_TOKENS, token_budget) if device_type == "cpu" else token_budget
    start = 0
    for size in _cheapest(np.maximum(lengths[order].astype(np.int64), 1), token_budget, beside):
        yield order[start : start + size]
        start += size


def _cheapest(lengths: "NDArray[np.int64]", token_budget: int, beside: int) -> list[int]:
    """Sizes of the batches that cost least, of all ways to cut rows that are ordered by length, longest first.

    A batch costs its padded tokens and ``beside``. Whole numbers, so that the same rows are cut alike everywhere.
    """
    num_rows = len(lengths)
    # cost_N[i] is that of the rows from i on.
    cost_N, size_N = np.zeros(num_rows + 1, np.int64), np.ones(num_rows, np.int64)
    counts = np.arange(1, num_rows + 1)
    for first in range(num_rows - 1, -1, -1):
        longest = int(lengths[first])
        most = max(1, min(token_budget // longest, num_rows - first))
        costs = cost_N[first + 1 : first + 1 + most] + longest * counts[:most]
        best = int(costs.argmin())
        cost_N[first], size_N[first] = costs[best] + beside, best + 1
    sizes, first = list[int](), 0
    while first < num_rows:
        sizes.append(int(size_N[first]))
        first += sizes[-1]
    return sizes


def pad_batch(rows: "TokenizedRows", indices: "NDArray[Any]", pad_token_id: int) -> dict[str, "torch.Tensor"]:
    """Gather rows into one padded batch.

    Returns ``input_ids`` int64 [B, L], ``attention_mask`` int64 [B, L] and, where the tokenizer gives them,
    ``token_type_ids`` int64 [B, L]; L is the longest row of the batch.
    """
    import torch

    from hskcache.text.padding import padded

    return {name: torch.from_numpy(array) for name, array in padded(rows, indices, pad_token_id).items()}


@contextmanager
def evaluating(model: "PreTrainedModel") -> Iterator[None]:
    """Switch every module to eval mode and put each back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def predict(
    model: "PreTrainedModel",
    rows: "TokenizedRows",
    *,
    pad_token_id: int,
    token_budget: int = 8192,
    bf16: bool = False,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> "NDArray[np.float32]":
    """Logits of every row, in row order.

    Returns float32 [N, C]; of rows of words those of all words that have a first piece, [P, C]. Raises MismatchError if
    a row is longer than the model's positions, or holds an id outside its vocabulary.

    Args:
        model: a classifier of rows, or of rows of words a tagger, on the device where to compute.
        pad_token_id: fills the padding, which the attention mask hides.
        token_budget: padded tokens of one batch at most, counted as :func:`row_costs`.
        bf16: compute under bfloat16 autocast.
        on_rows: called with the number of rows done since the last call.
    """
    import torch

    check_fit(model, rows)
    device = model.device
    with_types = takes_token_types(model)
    words = rows.words
    num_answers = len(rows.offsets) - 1 if words is None else len(words.positions)
    logits = torch.empty(num_answers, model.config.num_labels, device=device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
    with evaluating(model), torch.inference_mode(), autocast:
        for indices in length_batches(row_costs(np.diff(rows.offsets)), token_budget):
            batch = pad_batch(rows, indices, pad_token_id)
            if not with_types:
                batch.pop("token_type_ids", None)
            output = model(**{name: values.to(device, non_blocking=True) for name, values in batch.items()})
            answers, place = output.logits.float(), indices
            if words is not None:
                first = torch.from_numpy(words.padded(indices, batch["input_ids"].shape[1])).to(device)
                answers, place = answers.flatten(0, 1).index_select(0, first), words.of(indices)
            # One copy to the host at the end: a copy per batch would stall the device each time.
            logits[torch.from_numpy(place).to(device)] = answers
            on_rows(len(indices))
    return logits.cpu().numpy()


def predict_windows(
    model: "PreTrainedModel", rows: "TokenizedRows", windowing: "Windowing", *, pad_token_id: int, bf16: bool = False
) -> "NDArray[np.float32]":
    """Logits of every row, in row order, as :func:`predict` gives them: the mean over the windows of each, [N, C].

    ``windowing``: how rows are read that are longer than a window. Raises MismatchError as that does, or of rows of
    words.
    """
    if rows.words is not None:
        raise MismatchError("rows of words with a tag each are not read in windows yet; leave --stride out")
    from hskcache.text.windows import windowed

    rows, counts_N = windowed(rows, windowing)
    sums_NC = np.add.reduceat(
        predict(model, rows, pad_token_id=pad_token_id, bf16=bf16), np.cumsum(counts_N) - counts_N
    )
    means_NC: NDArray[np.float32] = (sums_NC / counts_N[:, None]).astype(np.float32)
    return means_NC


def check_fit(model: "PreTrainedModel", rows: "TokenizedRows", cache: str | None = None) -> None:
    """Refuse rows that a model cannot read.

    ``cache``: name of the cache that holds them, whose rows no option shortens; None where they are of a data file.
    Raises MismatchError if a row is longer than the model's positions, or holds an id outside its vocabulary.
    """
    if not len(rows.input_ids):
        return
    largest, vocabulary = int(rows.input_ids.max()), int(model.config.vocab_size)
    if largest >= vocabulary:
        whose = "the tokenizer gives" if cache is None else f"{cache} holds"
        remedy = "use the model's tokenizer" if cache is None else "give a student with the cache's tokenizer"
        raise MismatchError(f"{whose} token id {largest} and the model knows {counted(vocabulary, 'id')}; {remedy}")
    longest, positions = int(np.diff(rows.offsets).max()), num_positions(model)
    if positions is not None and longest > positions:
        remedy = f"give --max-length {positions} or less"
        if cache is not None:
            remedy = f"give another student, or a cache that was built with --max-length {positions} or less"
        where = "" if cache is None else f" of {cache}"
        raise MismatchError(
            f"a row{where} has {counted(longest, 'token')} and the model {positions} positions; {remedy}"
        )
