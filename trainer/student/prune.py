"""Cut a student out of a fine-tuned teacher: layers, heads, neurons and the rank of the word embedding.

This is how [MUD 4.1] makes the ROSITA students: the heads and neurons with the highest importance stay in every kept
layer, in their order, and the word embedding becomes two matrices by a truncated singular value decomposition. The
students of [StarK] keep a share of all heads and of all neurons, ranked over all layers by importance that has the
same length in every layer, so that layers end with different numbers of them, perhaps with none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertForSequenceClassification, BertModel, PreTrainedConfig, PreTrainedModel

from hskcache.counted import counted
from hskcache.errors import SpecError, TeacherError
from trainer.student.compact import CompactBertConfig, CompactBertForSequenceClassification, CompactBertModel
from trainer.student.create import seeded
from trainer.student.importance import LayerImportance
from trainer.student.layers import from_teacher_layers, resolve_layers

# What can be cut, and what it becomes where heads are fewer or the embedding is factored.
COMPACT: dict[type[PreTrainedModel], type[PreTrainedModel]] = {
    BertForSequenceClassification: CompactBertForSequenceClassification,
    BertModel: CompactBertModel,
}
# Added to the length of a layer's scores, which may all be 0, as the teacher's are [StarK 3.2].
EPSILON = 1e-7
_Kept = dict[int, NDArray[np.int64]]
_WORDS = "embeddings.word_embeddings.weight"
_EXPANSION = "embeddings.word_expansion.weight"


@dataclass(frozen=True)
class Pruning:
    """Parts of a teacher that stay; None keeps all of it.

    Attributes:
        layers: 1-based numbers of the layers, in the student's order.
        heads: of every kept layer.
        ffn: neurons of every kept layer.
        embedding_rank: rank of the factored word embedding; None leaves it one matrix.
        share: of all heads and of all neurons of the kept layers, in place of ``heads`` and ``ffn``; above 0, at most
            1.
    """

    layers: tuple[int, ...]
    heads: int | None = None
    ffn: int | None = None
    embedding_rank: int | None = None
    share: float | None = None

    def needs_importance(self, teacher: PreTrainedModel) -> bool:
        """True if some heads or neurons have to go, so that their importance must be known."""
        config = teacher.config
        if self.share is not None and self.share < 1:
            return True
        return self.heads not in (None, config.num_attention_heads) or self.ffn not in (None, config.intermediate_size)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A student and where it comes from.

    ``model``: on the CPU in float32, in eval mode; it shares no memory with the teacher. ``heads``: teacher's layer ->
    its heads that stayed, counted from 0, rising. ``neurons``: teacher's layer -> its neurons that stayed, likewise.
    """

    model: PreTrainedModel
    heads: dict[int, tuple[int, ...]]
    neurons: dict[int, tuple[int, ...]]


def prunable_layers(layers: str | None, teacher_layers: int) -> tuple[int, ...]:
    """Layers of a teacher to keep: all for None, the first N for a number N, else what resolve_layers reads.

    Raises SpecError if not of these forms, or layers the teacher lacks.
    """
    if layers is None:
        return tuple(range(1, teacher_layers + 1))
    if not layers.isdecimal():
        return resolve_layers(layers, teacher_layers)
    if not 1 <= int(layers) <= teacher_layers:
        raise SpecError(
            f"--layers {layers}: the teacher has {counted(teacher_layers, 'layer')}; keep 1 to {teacher_layers} of them"
        )
    return tuple(range(1, int(layers) + 1))


def check_cut(teacher: PreTrainedModel, cut: Pruning) -> None:
    """Refuse a cut that cannot be made, before any row is read.

    Raises TeacherError if the teacher is not a plain BERT encoder; SpecError if more is to be kept than there is, or
    nothing.
    """
    config = teacher.config
    if type(teacher) not in COMPACT or config.is_decoder:
        raise TeacherError(
            f"{type(teacher).__name__} cannot be pruned; give a plain BERT, or take whole layers with --from"
        )
    for name, count, most in (
        ("--heads", cut.heads, config.num_attention_heads),
        ("--ffn", cut.ffn, config.intermediate_size),
        ("--embedding-rank", cut.embedding_rank, min(config.vocab_size, config.hidden_size)),
    ):
        if count is not None and not 1 <= count <= most:
            raise SpecError(f"{name} {count}: the teacher has {most}; ask for 1 to {most}")
    if cut.share is None:
        return
    if cut.heads is not None or cut.ffn is not None:
        raise SpecError("--global keeps a share of all heads and neurons; leave out --heads and --ffn")
    for units, each in (("heads", config.num_attention_heads), ("neurons", config.intermediate_size)):
        if not round(cut.share * each * len(cut.layers)):
            raise SpecError(
                f"--global {cut.share:g} keeps none of {each * len(cut.layers)} {units}; give a larger share"
            )


def prune(teacher: PreTrainedModel, cut: Pruning, importance: Mapping[int, LayerImportance] | None = None) -> Pruned:
    """Make a student of what ``cut`` keeps.

    It is a plain BERT where BERT has the shapes for it, and of the classes in ``trainer.student.compact`` where heads
    are fewer or the embedding is factored. ``teacher``: a BERT encoder, with or without a classifier. ``importance``:
    scores of every kept layer; not needed where all heads and neurons stay. For a share of all, those of masks. Raises
    TeacherError if the teacher is not a plain BERT encoder; SpecError if more is to be kept than there is, or nothing.
    """
    check_cut(teacher, cut)
    config = teacher.config
    heads, neurons = _chosen(config, cut, importance if cut.needs_importance(teacher) else None)
    base = from_teacher_layers(teacher, cut.layers)
    prefix = "" if base.base_model is base else f"{base.base_model_prefix}."
    weights = dict(base.state_dict())
    head_size = config.hidden_size // config.num_attention_heads
    for place, layer in enumerate(cut.layers):
        # The columns of a head are neighbours in the attention's width.
        columns = (heads[layer][:, None] * head_size + np.arange(head_size)).ravel()
        _cut_layer(weights, f"{prefix}encoder.layer.{place}.", columns, neurons[layer])
    if cut.embedding_rank is not None:
        words = weights[f"{prefix}{_WORDS}"]
        weights[f"{prefix}{_WORDS}"], weights[f"{prefix}{_EXPANSION}"] = factor(words, cut.embedding_rank)
    model = _empty(base, cut, ([len(one) for one in heads.values()], [len(one) for one in neurons.values()]))
    model.load_state_dict(weights, strict=True)
    return Pruned(model.eval(), _numbers(heads), _numbers(neurons))


def _chosen(
    config: PreTrainedConfig, cut: Pruning, importance: Mapping[int, LayerImportance] | None
) -> tuple[_Kept, _Kept]:
    """The heads and the neurons that stay."""
    num_heads, num_neurons = cut.heads or config.num_attention_heads, cut.ffn or config.intermediate_size
    if importance is None:
        return (
            {layer: np.arange(num_heads) for layer in cut.layers},
            {layer: np.arange(num_neurons) for layer in cut.layers},
        )
    heads = {layer: importance[layer].heads for layer in cut.layers}
    neurons = {layer: importance[layer].neurons for layer in cut.layers}
    if cut.share is not None:
        return _highest(heads, cut.share), _highest(neurons, cut.share)
    return (
        {layer: _best(scores, num_heads) for layer, scores in heads.items()},
        {layer: _best(scores, num_neurons) for layer, scores in neurons.items()},
    )


def _highest(scores: Mapping[int, NDArray[np.float64]], share: float) -> _Kept:
    """The numbers of the highest of all layers together, each layer's scores at length 1; of equals the first stay."""
    flat = np.concatenate([scores_U / (np.linalg.norm(scores_U) + EPSILON) for scores_U in scores.values()])
    best = _best(flat, round(share * len(flat)))
    kept, start = {}, 0
    for layer, scores_U in scores.items():
        kept[layer] = best[(best >= start) & (best < start + len(scores_U))] - start
        start += len(scores_U)
    return kept


def factor(words_VD: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best two matrices of rank r for a word embedding, by singular values: U S, and the rows of V.

    Returns [V, r] and [D, r], whose product, the second transposed, is the embedding; dtype as given, computed in
    float64.
    """
    left_VR, values_R, right_RD = torch.linalg.svd(words_VD.double(), full_matrices=False)
    table = left_VR[:, :rank] * values_R[:rank]
    return table.to(words_VD.dtype), right_RD[:rank].T.contiguous().to(words_VD.dtype)


def _best(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The numbers of the highest scores, rising; ties go to the lowest number."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _cut_layer(weights: dict[str, Tensor], layer: str, columns: NDArray[np.int64], neurons: NDArray[np.int64]) -> None:
    """Keep these columns of the attention and these neurons of one layer; ``layer`` begins the names of its weights."""
    kept = {
        **{f"attention.self.{name}": (columns, 0) for name in ("query", "key", "value")},
        "attention.output.dense": (columns, 1),
        "intermediate.dense": (neurons, 0),
        "output.dense": (neurons, 1),
    }
    for name, (numbers, dim) in kept.items():
        index = torch.from_numpy(numbers)
        weight, bias = weights.pop(f"{layer}{name}.weight"), weights.pop(f"{layer}{name}.bias")
        # Where nothing is left, the bias behind it is.
        if len(index):
            weights[f"{layer}{name}.weight"] = weight.index_select(dim, index)
        if len(index) or dim == 1:
            weights[f"{layer}{name}.bias"] = bias if dim == 1 else bias.index_select(0, index)


def _empty(base: PreTrainedModel, cut: Pruning, numbers: tuple[list[int], list[int]]) -> PreTrainedModel:
    """A model of the student's shape, of so many heads and neurons by layer, whose weights are all still to come."""
    settings, (heads, neurons) = base.config.to_dict(), numbers
    head_size = settings["hidden_size"] // settings["num_attention_heads"]
    is_even = len(set(heads)) == len(set(neurons)) == 1
    is_full = is_even and heads[0] == settings["num_attention_heads"]
    settings["num_attention_heads"], settings["intermediate_size"] = max(heads), max(neurons)
    kind, config_kind = type(base), type(base.config)
    if cut.embedding_rank is not None or not is_full:
        kind, config_kind = COMPACT[kind], CompactBertConfig
        settings |= {
            "model_type": CompactBertConfig.model_type,
            "head_size": head_size,
            "embedding_rank": cut.embedding_rank,
            "heads_by_layer": heads if len(set(heads)) > 1 else None,
            "neurons_by_layer": neurons if len(set(neurons)) > 1 else None,
        }
    with seeded(0):
        return kind(config_kind.from_dict(settings))


def _numbers(kept: Mapping[int, NDArray[np.int64]]) -> dict[int, tuple[int, ...]]:
    return {layer: tuple(numbers.tolist()) for layer, numbers in kept.items()}
