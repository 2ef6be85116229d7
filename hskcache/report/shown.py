"""Rows as a page shows them: every token with its ranks, and how the heads of the teacher look at it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hskcache.cache import Cache
from hskcache.classes import has_gold, several_classes, single_classes
from hskcache.describe import DESCRIPTIONS
from hskcache.rows import Arrays, read_rows, take
from hskcache.shading import strength
from hskcache.spelling import Spelling
from hskcache.store.fields import INPUTS, LOGITS, Field, kind_of, layer_name


@dataclass(frozen=True)
class LayerRank:
    """Rank of a token in one layer.

    Attributes:
        heading: of the layer.
        rank: 1 the best; None where the position was not kept.
        shade: 1 of the best, 0 where it was not kept.
    """

    heading: str
    rank: int | None
    shade: float


@dataclass(frozen=True)
class ShownToken:
    """A token of a row.

    Attributes:
        text: its spelling.
        ranks: in each layer.
        heads: by heading of a layer of attention, the share of the attention of the kept queries that the token gets
            among the kept keys, by head.
    """

    text: str
    ranks: list[LayerRank]
    heads: Mapping[str, list[float]]

    @property
    def shade(self) -> float:
        """The strongest of all layers."""
        return max((rank.shade for rank in self.ranks), default=0.0)


@dataclass(frozen=True)
class ShownRow:
    """A row of a cache.

    Attributes:
        number: counted from 0.
        label: name of its class, or its score; None where it has none.
        answers: by field of answers, the probability of each class by its name, or the score under no name.
        is_multilabel: whether the row has any number of classes: those of a probability above 0.5.
        tokens: in order.
        headings: of the layers that keep positions.
    """

    number: int
    label: str | None
    answers: Mapping[str, dict[str, float]]
    tokens: list[ShownToken]
    headings: list[str] = field(default_factory=list)
    is_multilabel: bool = False

    def answer(self, name: str) -> tuple[str, float] | None:
        """The most probable class of a field of answers with its probability, or its score.

        Of any number of classes these, and how probable the least sure answer is to one of all classes.
        """
        given = self.answers.get(name)
        if given and self.is_multilabel:
            surety = min(max(share, 1 - share) for share in given.values())
            return _several(class_ for class_, share in given.items() if share > 1 / 2), surety
        return max(given.items(), key=lambda one: one[1]) if given else None

    def is_wrong(self, name: str) -> bool:
        """True where the answer is another class than the label."""
        answer = self.answer(name)
        return answer is not None and self.label is not None and answer[0] not in {"", self.label}


def shown_rows(cache: Cache, numbers: Sequence[int], with_values: bool) -> dict[int, ShownRow]:
    """Some rows by their number; of each field one shard at a time is in memory.

    ``with_values``: whether attention is decoded, which needs torch. Raises DamageError if a file is missing or
    altered.
    """
    rows = np.unique(np.array(numbers, np.int64))
    if not len(rows):
        return {}
    stored = {name: read_rows(cache, name, rows) for name in cache.fields}
    spelling = Spelling(cache.tokenizer_path)
    of_layers = {name: _Layers(cache, name, with_values) for name in cache.fields if name != INPUTS}
    found = {}
    for place, number in enumerate(rows.tolist()):
        one = {name: take(cache.fields[name], arrays, np.array([place])) for name, arrays in stored.items()}
        found[number] = _row(cache, number, one, spelling, of_layers)
    return found


def _row(
    cache: Cache, number: int, stored: Mapping[str, Arrays], spelling: Spelling, of_layers: "Mapping[str, _Layers]"
) -> ShownRow:
    names = cache.manifest.request.data.label_names
    is_multilabel = cache.manifest.request.data.problem == "multilabel"
    tokens = spelling.tokens(stored[INPUTS]["input_ids"].tolist())
    kept: dict[str, list[int]] = {}
    heads: dict[str, dict[int, list[float]]] = {}
    for name, layers in of_layers.items():
        kept |= layers.kept(stored[name])
        heads |= layers.heads(stored[name])
    answers = {
        name: given for name in of_layers if (given := _answers(cache.fields[name], stored[name], names, is_multilabel))
    }
    return ShownRow(
        number,
        _label(stored[INPUTS], names, is_multilabel),
        answers,
        [
            ShownToken(
                text,
                [_rank(heading, position, positions) for heading, positions in kept.items()],
                {heading: by_key[position] for heading, by_key in heads.items() if position in by_key},
            )
            for position, text in enumerate(tokens)
        ],
        list(kept),
        is_multilabel,
    )


def _rank(heading: str, position: int, kept: list[int]) -> LayerRank:
    rank = kept.index(position) + 1 if position in kept else None
    return LayerRank(heading, rank, strength(position, kept))


def _several(names: Iterable[str]) -> str:
    return ", ".join(names) or "no class"


def _label(inputs: Arrays, names: Sequence[str], is_multilabel: bool) -> str | None:
    labels = inputs.get("labels")
    if labels is None or not has_gold(labels)[0]:
        return None
    if is_multilabel:
        return _several(class_name(index, names) for index in np.flatnonzero(several_classes(labels[0])).tolist())
    labels = single_classes(labels)
    return class_name(int(labels[0]), names) if labels.dtype.kind == "i" else f"{float(labels[0]):.3g}"


def class_name(index: int, names: Sequence[str]) -> str:
    """Name of a class; its number where it has none."""
    return names[index] if 0 <= index < len(names) else str(index)


def _answers(stored: Field, arrays: Arrays, names: Sequence[str], is_multilabel: bool) -> dict[str, float]:
    """Probability of each class, or under no name the score; empty where there is no answer, or NaN or infinity."""
    num_answers = kind_of(stored).num_answers(stored)
    if num_answers is None or LOGITS not in arrays:
        return {}
    logits = arrays[LOGITS][0].astype(np.float64)
    if not np.isfinite(logits).all():
        return {}
    if is_multilabel:
        return {class_name(index, names): float(share) for index, share in enumerate(1 / (1 + np.exp(-logits)))}
    if num_answers == 1:
        return {"": float(logits[0])}
    weights = np.exp(logits - logits.max())
    return {class_name(index, names): float(weight) for index, weight in enumerate(weights / weights.sum())}


class _Layers:
    """Layers of a field that keep positions."""

    def __init__(self, cache: Cache, name: str, with_values: bool) -> None:
        self._field, self._constants = cache.fields[name], cache.constants(name)
        heading = name if name in cache.manifest.added else DESCRIPTIONS[self._field.kind].heading or name
        arrays = kind_of(self._field).arrays(self._field)
        numbered = {layer: f"{layer_name(layer)}/positions" for layer in self._field.stored_layers}
        self._arrays = {layer: array for layer, array in numbered.items() if array in arrays}
        self._headings = {layer: f"{heading} {layer}" for layer in self._arrays}
        self._with_values = with_values

    def kept(self, arrays: Arrays) -> dict[str, list[int]]:
        """Kept positions of a row by heading, best first."""
        return {self._headings[layer]: arrays[array].tolist() for layer, array in self._arrays.items()}

    def heads(self, arrays: Arrays) -> dict[str, dict[int, list[float]]]:
        """Attention that each key gets by head, by heading and key; empty of what is no attention."""
        if not self._with_values or not self._arrays:
            return {}
        from hskcache.decoded import DECODED, decode

        found = {}
        for layer in self._arrays:
            vectors = decode(self._field, arrays, layer, self._constants)
            values_VE, entries_VE, heads_V = (
                one.numpy() for one in (vectors.values_VE, vectors.entries_VE, vectors.heads_V)
            )
            if not values_VE.size or not DECODED[self._field.kind].are_scores(self._field, values_VE.shape[1]):
                continue
            # Whatever a stranger wrote there, NaN and infinity get no attention.
            is_there_VE = (entries_VE >= 0) & np.isfinite(values_VE)
            scores_VE = np.where(is_there_VE, values_VE, np.finfo(np.float32).min)
            weights_VE = np.exp(scores_VE - scores_VE.max(1, keepdims=True)) * is_there_VE
            weights_VE /= np.maximum(weights_VE.sum(1, keepdims=True), 1e-30)
            # A vector for each head and query; all queries of a row have the same keys.
            heads_H = np.unique(heads_V)
            mean_HE = np.stack([weights_VE[heads_V == head].mean(0) for head in heads_H])
            keys_E = entries_VE[0]
            found[self._headings[layer]] = {
                int(key): mean_HE[:, place].tolist() for place, key in enumerate(keys_E) if key >= 0
            }
        return found
