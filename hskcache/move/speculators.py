"""Export of a language model's cache to the folder that speculators trains draft models of its own from.

vllm-project/speculators 0.9 reads, where hidden states were computed before the training: a data set of ``input_ids``,
``loss_mask`` and ``seq_len``; beside it ``hidden_states/hs_N.safetensors`` for each row N, with ``token_ids`` [tokens]
and ``hidden_states`` [tokens, layers, width]; and ``token_freq.pt``, how often each token is one to be predicted. The
last of the layers is the model's last, as it is before the final norm, since the trainer norms it itself; the others
are what the draft model reads.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache import disk
from hskcache.cache import Cache
from hskcache.errors import MismatchError
from hskcache.move.whole import OnProgress, Written, replacing_folder, stands
from hskcache.store.fields import INPUTS, HiddenField
from hskcache.values.columns import blocks

NOTE = "hskcache.json"
"""File of the folder that names the cache."""

States = NDArray[np.float32]


class NormedCache(NamedTuple):
    """A cache whose last states are normed, and the way back.

    Attributes:
        cache: of a causal language model.
        before_norm: leads the model's last states [tokens, width] to those before its final norm, up to a factor of
            each token, which the norm takes away.
    """

    cache: Cache
    before_norm: Callable[[States], States]


def export_speculators(
    source: NormedCache, target: Path, force: bool = False, on_progress: OnProgress | None = None
) -> Written:
    """Write the folder; one of the same cache is left alone.

    Args:
        source: the cache, and the way back through the final norm.
        target: the folder.
        force: replace the export of another cache.
        on_progress: told of rows.

    Raises:
        CacheError: the folder cannot be written.
        DamageError: a file of the cache is missing or altered.
        MismatchError: the cache does not hold whole states of the last layer and another one at every position; or
            something else stands at ``target``.
    """
    cache = source.cache
    layers = layers_of(cache)
    if stands(target, cache.id, force, _exported, "export for speculators"):
        return Written(cache.manifest, was_there=True)
    need = _num_bytes(cache, len(layers))
    disk.require_space(target, need, f"{target} needs about", "export to another disk", "folder")
    with disk.writing_to(target, "the beginning"), replacing_folder(target) as partial:
        partial.mkdir(parents=True)
        _Export(source, layers, partial).write(on_progress or (lambda _rows, _total: None))
        note = {"format": "hskcache", "cache_id": cache.id, "layers": layers}
        (partial / NOTE).write_text(json.dumps(note) + "\n")
    return Written(cache.manifest, was_there=False)


def layers_of(cache: Cache) -> list[int]:
    """Layers that an export would hold, ascending. Raises MismatchError if the cache cannot be exported so."""
    teacher, field = cache.manifest.request.teacher, cache.fields.get("hidden")
    last = teacher.num_layers
    if cache.manifest.request.data.problem != "language":
        raise MismatchError(f"{cache.name} holds no rows of a causal language model, whose drafts speculators trains")
    if not isinstance(field, HiddenField) or field.layers[-1] != last or len(field.layers) < 2:
        found = ", ".join(map(str, field.layers)) if isinstance(field, HiddenField) else "none"
        raise MismatchError(
            f"{cache.name} has the hidden layers {found}, and a draft model learns from layer {last}, the last, and "
            f"some below it; build with --keep full --store-layers 2,{last // 2},{last}, for example"
        )
    if field.columns != "all" or not field.keeps_all:
        raise MismatchError(
            f"{cache.name} keeps some positions or columns of each hidden state, and a draft model learns from whole "
            "ones; build with --keep full"
        )
    return field.layers


def _num_bytes(cache: Cache, num_layers: int) -> int:
    """Bytes of the export, about: states of 16 bits, and three numbers of 64 a token."""
    width = cache.manifest.request.teacher.width
    tokens = sum(
        int(cache.read(INPUTS, shard, {"row_offsets"})["row_offsets"][-1]) for shard in range(len(cache.shards))
    )
    return tokens * (2 * width * num_layers + 24)


class _Export:
    """An export on its way into a folder."""

    def __init__(self, source: NormedCache, layers: list[int], folder: Path) -> None:
        self._source, self._layers, self._folder = source, layers, folder
        self._has_targets = bool(getattr(source.cache.fields[INPUTS], "has_targets", False))
        self._counts = Counter[int]()

    def write(self, on_progress: OnProgress) -> None:
        """Write everything but the note."""
        import torch
        from datasets import Dataset, Features, List, Value
        from datasets.arrow_writer import ArrowWriter

        (self._folder / "hidden_states").mkdir()
        # A data set is not saved over the file that it is read from.
        numbers, beside = List(Value("int64")), self._folder / "rows" / "rows.arrow"
        beside.parent.mkdir()
        features = Features({"input_ids": numbers, "loss_mask": numbers, "seq_len": Value("int64")})
        with ArrowWriter(features=features, path=str(beside)) as writer:
            for row in self._rows(on_progress):
                writer.write(row)
            writer.finalize()
        rows = Dataset.from_file(str(beside))
        rows.set_format("torch")
        with _quietly():
            rows.save_to_disk(self._folder)
        shutil.rmtree(beside.parent)
        torch.save(dict(self._counts), self._folder / "token_freq.pt")

    def _rows(self, on_progress: OnProgress) -> Iterator[dict[str, Any]]:
        """Rows of the data set; the states of each are written on the way."""
        cache = self._source.cache
        left_out = cache.skipped([INPUTS, "hidden"])
        rows = np.setdiff1d(np.arange(cache.num_rows), left_out)
        names = [f"hidden.{layer}{part}" for layer in self._layers for part in ("", ".positions")]
        number = 0
        for block in blocks(cache, rows, ["input_ids", *(["targets"] if self._has_targets else []), *names]):
            columns = {name: column.rows() for name, column in block.items()}
            for place, ids in enumerate(columns["input_ids"]):
                # The first token of a row is predicted by none.
                mask = columns["targets"][place] if self._has_targets else np.arange(len(ids)) > 0
                self._write_states(
                    number, ids.astype(np.int64), [_ordered(columns, one, place) for one in self._layers]
                )
                self._counts.update(ids[mask.astype(bool)].tolist())
                yield {"input_ids": ids, "loss_mask": mask, "seq_len": len(ids)}
                number += 1
                on_progress(1, len(rows))

    def _write_states(self, number: int, ids: NDArray[np.int64], states: list[States]) -> None:
        """The file of one row; ``states``: of each layer, [tokens, width]."""
        import torch
        from safetensors.torch import save_file

        states = [*states[:-1], self._source.before_norm(states[-1])]
        tensors = {
            "token_ids": torch.from_numpy(ids),
            "hidden_states": torch.from_numpy(np.stack(states, axis=1)).bfloat16(),
        }
        save_file(tensors, self._folder / "hidden_states" / f"hs_{number}.safetensors")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars of datasets, beside which ours stands."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _ordered(columns: dict[str, list[NDArray[Any]]], layer: int, place: int) -> States:
    """States of a row, which are kept best first, in the order of its tokens."""
    states, positions = columns[f"hidden.{layer}"][place], columns[f"hidden.{layer}.positions"][place]
    if len(positions) != len(columns["input_ids"][place]):
        raise MismatchError(f"layer {layer} is not kept at every position of the rows; build with --keep full")
    ordered = np.empty_like(states)
    ordered[positions] = states
    return ordered


def _exported(target: Path) -> str | None:
    """Id of the cache that a folder is the export of; None if it is something else."""
    try:
        found = json.loads((target / NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    named = found.get("cache_id") if isinstance(found, dict) and found.get("format") == "hskcache" else None
    return named if isinstance(named, str) else None
