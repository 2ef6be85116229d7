"""One pass over a language model's head: logits of some positions at a time, and all that a batch asks of them."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from hskcache.build.positions import PaddedRows
from hskcache.output_head import OutputHead
from hskcache.selection.scores import SCORED, NextScore, SaidNext
from hskcache.selection.vocabulary import chunks
from hskcache.teacher.capture import Captured

OfChunk = Callable[[SaidNext, slice], dict[str, Tensor]]
"""Makes something of what is said at some positions, whose logits it may overwrite; ``slice``: which these are."""


class HeadPass:
    """Pass over a head at some positions of a batch.

    Args:
        head: of the teacher.
        captured: what it left behind, final states among it; takes the scores of positions.
        rows: the batch.
        place_P: places in the flattened batch, each followed by a token of the same row, int64.
    """

    def __init__(self, head: OutputHead, captured: Captured, rows: PaddedRows, place_P: Tensor) -> None:
        assert captured.final is not None
        self._head, self._captured, self._place_P = head, captured, place_P
        self._shape = rows.input_ids_BL.shape
        self.states_PD = captured.final.flatten(0, 1).index_select(0, place_P)
        self._gold_ids_P = rows.input_ids_BL.flatten().index_select(0, place_P + 1)

    def run(self, scores: Collection[str], of_chunk: OfChunk) -> dict[str, Tensor]:
        """Tensors made of all chunks, [P, ...] by name; positions are scored on the way.

        Args:
            scores: names of scores by the next token; of a position that is not passed they are 0.
            of_chunk: gives the same names of every chunk.
        """
        places = list(chunks(len(self._place_P), len(self._head.weight_VD))) or [slice(0, 0)]
        parts = [self._of_chunk(chunk, scores, of_chunk) for chunk in places]
        scored, made = (
            {name: torch.cat([part[which][name] for part in parts]) for name in parts[0][which]} for which in (0, 1)
        )
        for name, score_P in scored.items():
            score = score_P.new_zeros(self._shape[0] * self._shape[1]).index_copy_(0, self._place_P, score_P)
            self._captured.scores[name, None] = score.view(self._shape)
        return made

    def _of_chunk(
        self, chunk: slice, scores: Collection[str], of_chunk: OfChunk
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scores and all else of some positions; their logits end with the call."""
        logits_CV, _ = self._head.logits(self.states_PD[chunk])
        said = SaidNext(logits_CV, logits_CV.gather(1, self._gold_ids_P[chunk].unsqueeze(-1)).squeeze(-1))
        # First, as all else may overwrite the logits.
        return {name: _score(name, said) for name in scores}, of_chunk(said, chunk)


def score_next(head: OutputHead, captured: Captured, rows: PaddedRows) -> None:
    """Score the positions of a batch as is asked for, unless that is done."""
    asked = captured.asked - {name for name, layer in captured.scores if layer is None}
    if asked:
        assert rows.next_P is not None
        HeadPass(head, captured, rows, rows.next_P).run(sorted(asked), lambda _said, _chunk: {})


def _score(name: str, said: SaidNext) -> Tensor:
    score = SCORED[name]
    assert isinstance(score, NextScore)
    return score.of(said)
