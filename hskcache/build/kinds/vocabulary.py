"""Next tokens as they are built: of logits, a chunk of positions at a time, the likeliest or draws; or final states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.head_pass import HeadPass
from hskcache.build.kinds.abc import (
    ARRAY_BYTES,
    Arrays,
    BuiltKind,
    Encoded,
    FieldBasis,
    Run,
    Size,
    kept_counts,
    num_nonfinite,
)
from hskcache.build.positions import PaddedRows, Positions, owners
from hskcache.encoding import get_encoding
from hskcache.errors import MismatchError, SpecError
from hskcache.output_head import OutputHead
from hskcache.ragged import ragged_index
from hskcache.recall import told_rows
from hskcache.resolved import head_of, vocabulary_field
from hskcache.selection.scores import SaidNext
from hskcache.selection.vocabulary import (
    LikeliestTokens,
    drawn_tokens,
    gaps_of,
    packed_ids,
    stored_top,
    top_tokens,
    uniforms,
)
from hskcache.spec import Length, Spec, Vocabulary
from hskcache.store.kinds.vocabulary import NextTokens, VocabularyField
from hskcache.store.request import Request
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher


@dataclass(frozen=True)
class KeptTokens:
    """Knowledge kept of the next tokens of a batch, at P positions, those of a row together.

    Attributes:
        place_P: of each in the flattened batch, int64.
        positions_P: of each in its row, int64.
        log_z_P: log of the sum of exp of the logits, float32.
        gold_P: log p of the row's own next token, float32.
        top: the likeliest tokens, where they are kept.
        draws_Pn: drawn tokens, ascending, int64, where they are kept.
        states_PD: final states, where they are kept.
    """

    place_P: Tensor
    positions_P: Tensor
    log_z_P: Tensor
    gold_P: Tensor
    top: LikeliestTokens | None = None
    draws_Pn: Tensor | None = None
    states_PD: Tensor | None = None


class VocabularySelector:
    """Selection of one form, of a teacher's head.

    Args:
        field: how it is stored.
        head: of the teacher.
        positions: the length dimension, of those that have a target.
        seed: of draws.
    """

    name = NextTokens.name

    def __init__(self, field: VocabularyField, head: OutputHead, positions: Positions, seed: int) -> None:
        self.field, self.head, self.positions, self.seed = field, head, positions, seed

    @property
    def wanted(self) -> Wanted:
        """The final states, and the score that chooses positions."""
        return Wanted(final=True, logits=True) | self.positions.wanted

    def select(self, captured: Captured, rows: PaddedRows) -> dict[None, KeptTokens]:
        """Knowledge of the positions that are kept, the best of each row first, or of all in its order."""
        assert rows.next_P is not None
        is_scored, is_whole = bool(captured.asked), self.positions.length.is_whole
        # What is scored by its logits is passed over before it is known which positions are kept.
        place_P = rows.next_P if is_scored or is_whole else self._chosen(captured, rows)
        known = self._known(captured, rows, place_P)
        if is_scored and not is_whole:
            place_P = self._chosen(captured, rows)
            index = torch.empty(rows.input_ids_BL.numel(), dtype=torch.int64, device=place_P.device)
            index[rows.next_P] = torch.arange(len(rows.next_P), device=place_P.device)
            kept_P = index.index_select(0, place_P)
            known = {name: one.index_select(0, kept_P) for name, one in known.items()}
        is_top = self.field.form == "top"
        top = LikeliestTokens(*(known.pop(name) for name in LikeliestTokens._fields)) if is_top else None
        positions_P = place_P % rows.input_ids_BL.shape[1]
        return {None: KeptTokens(place_P, positions_P, top=top, **known)}

    def encode(self, kept: KeptTokens, rows: PaddedRows) -> Encoded:
        """The arrays of the form, and what is not finite among what is read back."""
        arrays = {
            "positions": kept.positions_P.to(torch.int16),
            "log_z": kept.log_z_P.half(),
            "gold": kept.gold_P.clamp(min=torch.finfo(torch.float16).min).half(),
        }
        floats = [arrays["log_z"], arrays["gold"]]
        if kept.top is not None:
            stored = stored_top(kept.top)
            arrays |= _packed("ids", kept.top.ids_PK, self.field) | stored._asdict()
            floats += [stored.ranges, stored.log_tail]
        bad_P = num_nonfinite(torch.stack(floats, -1).float())
        if kept.draws_Pn is not None:
            arrays |= _packed("gaps", gaps_of(kept.draws_Pn), self.field)
        if kept.states_PD is not None:
            assert self.field.encoding is not None
            assert self.field.width is not None
            encoding = get_encoding(self.field.encoding)
            values = encoding.encode(kept.states_PD)
            arrays |= values
            bad_P = bad_P + num_nonfinite(encoding.decode(values, self.field.width))
        kept_B = rows.kept_B[self.name]
        nonfinite = torch.zeros(len(kept_B), dtype=torch.int32, device=bad_P.device)
        return Encoded(arrays, nonfinite.index_add_(0, owners(kept_B, bad_P.device), bad_P))

    def _chosen(self, captured: Captured, rows: PaddedRows) -> Tensor:
        """Places in the flattened batch of the positions that are kept, best first, int64 [P]."""
        (positions_BK,) = self.positions.choose(captured, rows).values()
        kept_B, (num_rows, slots) = rows.kept_B[self.name], positions_BK.shape
        begin_B1 = torch.arange(num_rows, device=positions_BK.device).unsqueeze(-1) * rows.input_ids_BL.shape[1]
        own = ragged_index(np.arange(num_rows) * slots, kept_B, positions_BK.device)
        return (positions_BK + begin_B1).flatten().index_select(0, own)

    def _known(self, captured: Captured, rows: PaddedRows, place_P: Tensor) -> dict[str, Tensor]:
        """Knowledge of some positions by its names in :class:`KeptTokens`, a top in parts; scores the positions."""
        row_P = torch.div(place_P, rows.input_ids_BL.shape[1], rounding_mode="floor")
        positions_P = place_P % rows.input_ids_BL.shape[1]
        uniforms_P = uniforms(rows.row_ids_B.index_select(0, row_P), positions_P, self.seed)
        passing = HeadPass(self.head, captured, rows, place_P)
        known = passing.run(sorted(captured.asked), lambda said, chunk: self._of_chunk(said, uniforms_P[chunk]))
        return known | ({"states_PD": passing.states_PD.float()} if self.field.form == "head" else {})

    def _of_chunk(self, said: SaidNext, uniforms_C: Tensor) -> dict[str, Tensor]:
        """Knowledge made of the logits of some positions."""
        count, found = self.field.count, dict[str, Tensor]()
        if self.field.form == "top":
            assert count is not None
            top, log_z_C = top_tokens(said.logits_CV, count)
            found |= top._asdict()
        elif self.field.form == "sampled":
            assert count is not None
            found["draws_Pn"], log_z_C = drawn_tokens(said.logits_CV, uniforms_C, count)
        else:
            log_z_C = said.logits_CV.logsumexp(-1)
        return found | {"log_z_P": log_z_C, "gold_P": said.gold_C - log_z_C}


class BuiltVocabulary(BuiltKind[VocabularyField]):
    """Building of what the spec says of next tokens."""

    def field(self, asked: FieldBasis) -> VocabularyField | None:
        """Field of the form and the counts that the spec names."""
        return None if asked.spec.vocabulary is None else vocabulary_field(asked.spec.vocabulary, asked.teacher)

    def size(self, field: VocabularyField, spec: Spec, rows: TokenizedRows) -> Size:
        """Size of the positions that are kept, and of the head."""
        assert spec.vocabulary is not None
        kept_N = kept_counts(_of_targets(spec.vocabulary.length), rows)
        arrays, constants = NextTokens().arrays(field), NextTokens().constants(field)
        position_bytes = sum(
            int(np.prod(array.shape)) * np.dtype(array.dtypes[0]).itemsize
            for name, array in arrays.items()
            if name != "position_offsets"
        )
        constant_bytes = sum(
            int(np.prod(array.shape)) * np.dtype(array.dtypes[0]).itemsize + 2 * ARRAY_BYTES
            for array in constants.values()
        )
        return Size(kept_N * position_bytes + 8, len(arrays), kept_N, constant_bytes)

    def wanted(self, field: VocabularyField, asked: FieldBasis) -> Wanted:
        """The final states, and the score that chooses positions."""
        assert asked.spec.vocabulary is not None
        return Wanted(final=True, logits=True) | _positions(asked.spec.vocabulary, frozenset()).wanted

    def constants(self, job: "Job", field: VocabularyField, run: Run, sample_rows: int) -> Arrays:
        """The head's weight and bias, in a type that holds them exactly."""
        if field.form != "head":
            return {}
        head = job.teacher.output_head
        assert head is not None
        assert field.head_dtype is not None
        tensors = {"weight": head.weight_VD} | ({} if head.bias_V is None else {"bias": head.bias_V})
        encoding = get_encoding(field.head_dtype)
        return {name: encoding.encode(tensor)["values"].cpu().numpy() for name, tensor in tensors.items()}

    def selector(self, job: "Job", field: VocabularyField, constants: Mapping[str, NDArray[Any]]) -> VocabularySelector:
        """The form, of the job's teacher."""
        head, vocabulary = job.teacher.output_head, job.spec.vocabulary
        assert head is not None
        assert vocabulary is not None
        return VocabularySelector(field, head, _positions(vocabulary, job.rows.special_ids), vocabulary.seed)

    def check_addition(self, teacher: "Teacher", request: Request, where: str) -> None:
        """Raise for caches of other rows than those of a language model."""
        if request.data.problem != "language":
            raise SpecError(
                f"{where} holds {told_rows(request.data)}, and next tokens are of rows of a causal language model; "
                "build a cache with one"
            )

    def check_classes(self, teacher: "Teacher", request: Request) -> None:
        """Raise unless it says as many tokens."""
        theirs, ours = head_of(request.teacher), head_of(teacher.info)
        if theirs is not None and ours is not None and theirs["vocab_size"] != ours["vocab_size"]:
            raise MismatchError(
                f"{teacher.info.name} says one of {ours['vocab_size']:,} tokens and the cache's teacher one of "
                f"{theirs['vocab_size']:,}; give a teacher of the same vocabulary"
            )


def _positions(vocabulary: Vocabulary, special_ids: frozenset[int]) -> Positions:
    """The length dimension of next tokens, which have no layers."""
    return Positions(_of_targets(vocabulary.length), [None], 1, special_ids)


def _of_targets(length: Length) -> Length:
    """A length of positions that have a target, as all are of which next tokens are kept."""
    return length.model_copy(update={"targets": True})


def _packed(name: str, ids_PK: Tensor, field: VocabularyField) -> dict[str, Tensor]:
    """Ids, or their differences, as two arrays or one."""
    low, high = packed_ids(ids_PK, field.high_bits)
    return {name: low} | ({} if high is None else {f"{name}_high": high})
