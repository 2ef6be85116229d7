"""What all rows of the hidden field share: the columns of a fixed choice, or the principal components of a sample."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.build.attention import AttentionSelector
from hskcache.build.extract import Arrays, Extractor
from hskcache.build.job import Job
from hskcache.build.knowledge import HiddenSelector, Selector
from hskcache.build.positions import Positions
from hskcache.selection.columns import uniform_columns
from hskcache.selection.depth import top_layer
from hskcache.selection.width import pca_components, random_columns
from hskcache.spec import Attention, Hidden
from hskcache.store.fields import AttentionField, HiddenField, layer_name

PCA_SAMPLE_ROWS = 2048
PCA_SAMPLE_POSITIONS = 1 << 16


def constants_for(job: Job, sample_rows: int = PCA_SAMPLE_ROWS) -> Arrays:
    """The shared arrays of a job by the names of the format; empty where positions share none.

    Args:
        job: what is to be kept.
        sample_rows: rows, spread evenly over the data, whose kept states principal components are fitted to.
    """
    hidden, field = job.spec.hidden, job.layout.hidden
    if hidden is None or field is None or field.columns not in {"shared", "pca"}:
        return {}
    if field.columns == "shared":
        columns = _columns(hidden, field)
        return {f"{layer_name(layer)}/columns": columns for layer in field.layers}
    constants: Arrays = {}
    for layer, states in _sample(job, hidden, field, sample_rows).items():
        components = pca_components(states, field.num_columns)
        constants[f"{layer_name(layer)}/mean"] = components.mean.numpy()
        constants[f"{layer_name(layer)}/basis"] = components.basis.numpy()
    return constants


def extractor_for(
    job: Job, constants: Arrays | None = None, fields: Collection[str] | None = None, first_row: int = 0
) -> Extractor:
    """The teacher with what is to be kept.

    Args:
        job: what is to be kept.
        constants: those of a cache whose rows it is to extend; None makes them.
        fields: to keep of those that the job has, beside the logits; None keeps all.
        first_row: row of the cache, or of the whole one that it is a part of, that the job's first one becomes.
    """
    selectors: list[Selector] = []
    spec, layout = job.spec, job.layout
    if spec.hidden is not None and layout.hidden is not None and (fields is None or "hidden" in fields):
        shared = constants_for(job) if constants is None else constants
        selectors.append(_hidden_selector(job, spec.hidden, layout.hidden, shared))
    if spec.attention is not None and layout.attention is not None and (fields is None or "attention" in fields):
        selectors.append(AttentionSelector(layout.attention, _positions(job, spec.attention, layout.attention)))
    return Extractor(job, selectors, first_row)


def _hidden_selector(job: Job, hidden: Hidden, field: HiddenField, constants: Arrays) -> HiddenSelector:
    return HiddenSelector(hidden, field, _positions(job, hidden, field), constants, job.teacher.device)


def _positions(job: Job, kept: Hidden | Attention, field: HiddenField | AttentionField) -> Positions:
    num_layers = job.teacher.info.num_layers
    last = top_layer(kept.depth, num_layers) if kept.length.score_layer == "mapped" else num_layers
    return Positions(kept.length, field.layers, last, job.rows.special_ids)


def _columns(hidden: Hidden, field: HiddenField) -> NDArray[np.uint16]:
    match hidden.width.scheme:
        case "uniform":
            columns = uniform_columns(field.width, hidden.width.fraction)
        case "random":
            columns = random_columns(field.width, field.num_columns, hidden.width.seed).tolist()
        case scheme:
            raise AssertionError(f"{scheme} shares no columns")
    return np.array(columns, np.uint16)


def _sample(job: Job, hidden: Hidden, field: HiddenField, sample_rows: int) -> dict[int, torch.Tensor]:
    """Kept states of a sample of rows with all their columns, float32 [P, D] on the host, by layer."""
    whole = field.model_copy(update={"columns": "all", "num_columns": field.width})
    extractor = Extractor(job, [_hidden_selector(job, hidden, whole, {})])
    lengths_N, kept_N = job.layout.lengths_N, job.layout.kept_N["hidden"]
    count = max(1, min(len(lengths_N), sample_rows, int(PCA_SAMPLE_POSITIONS / kept_N.mean())))
    rows = np.unique(np.linspace(0, len(lengths_N) - 1, count).astype(np.int64))
    states: dict[int, list[torch.Tensor]] = {layer: [] for layer in field.layers}
    per_batch = max(1, job.spec.token_budget // int(lengths_N[rows].max()))
    for first in range(0, len(rows), per_batch):
        _, kept = extractor.knowledge(*extractor.batch(rows[first : first + per_batch]))
        for layer, entries in kept["hidden"].items():
            states[layer].append(entries.values_PW.cpu())
    return {layer: torch.cat(parts) for layer, parts in states.items()}
