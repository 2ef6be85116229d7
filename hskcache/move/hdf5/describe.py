"""What the attributes of an HDF5 file tell those who read it without hskcache."""

from typing import Any

from hskcache.encoded import ENCODED
from hskcache.move.hdf5.layout import Stored
from hskcache.store.fields import AttentionField, Field, HiddenField, InputsField
from hskcache.store.manifest import Manifest

# By the last part of a dataset's name: what its axes count, and what it holds.
_ARRAYS = {
    "input_ids": ("token", "token ids without padding"),
    "token_type_ids": ("token", "token types"),
    "row_offsets": ("row", "tokens [i, i + 1) are those of row i"),
    "row_ids": ("row", "number of the row in the data set"),
    "labels": ("row", "class, or score of a regression"),
    "logits": ("row, class", "the teacher's logits"),
    "position_offsets": ("row", "kept positions [i, i + 1) are those of row i, in every layer"),
    "value_offsets": ("row", "entries [i, i + 1) of values are those of row i, in every layer"),
    "vector_offsets": ("row", "scales [i, i + 1) are those of row i, in every layer"),
    "positions": ("kept position", "place of the token in its row, counted from 0; the best first"),
    "bitmask": (
        "kept position, 8 columns",
        "which columns values holds: column c is bit c % 8, low first, of byte c // 8",
    ),
}
_HIDDEN = {
    "values": ("kept position, column", "hidden states, encoded"),
    "scales": ("kept position", "what the integers of values are multiplied by"),
    "columns": ("kept position, column", "which columns of the state values holds"),
}
_CONSTANTS = {
    "columns": ("column", "which columns of the state values holds, in all positions"),
    "mean": ("column of the state", "mean of the states, which was taken off before the projection"),
    "basis": ("component, column of the state", "values @ basis + mean is the state"),
}
_ATTENTION = {
    "values": (
        "score",
        "scores before mask and softmax, encoded: head by head, query by query, a score for each kept key",
    ),
    "scales": ("vector", "what the integers of each vector (the scores of one head and query) are multiplied by"),
}


def file_attributes(manifest: Manifest, layout_version: int) -> dict[str, Any]:
    """Attributes of the file."""
    request = manifest.request
    return {
        "format": "hskcache",
        "format_version": manifest.format_version,
        "layout_version": layout_version,
        "cache_id": manifest.cache_id,
        "num_rows": request.num_rows,
        "teacher": request.teacher.name,
        "data": request.data.name,
    }


def field_attributes(field: Field) -> dict[str, Any]:
    """Attributes of a field's group: what the manifest says of it; what is not set is left out."""
    found = field.model_dump(exclude_none=True)
    if isinstance(field, HiddenField | AttentionField):
        found["decode"] = ENCODED[field.encoding].decode
    return found


def dataset_attributes(field: Field, name: str, stored: Stored, is_constant: bool) -> dict[str, str]:
    """Attributes of a dataset: what its axes count, what it holds, and which offsets divide it into rows."""
    own = _ATTENTION if isinstance(field, AttentionField) else _CONSTANTS if is_constant else _HIDDEN
    axes, about = (_ARRAYS | own).get(name.rpartition("/")[2], ("", ""))
    if stored.is_offsets:
        axes = "row, and one more"
    found = {"axes": axes, "about": about}
    offsets = None if is_constant or stored.is_offsets else _offsets(field, name)
    if offsets is not None:
        found["offsets"] = f"/{stored.path.partition('/')[0]}/{offsets}"
    return found


def _offsets(field: Field, name: str) -> str | None:
    if isinstance(field, InputsField):
        return "row_offsets" if name in {"input_ids", "token_type_ids"} else None
    part = name.rpartition("/")[2]
    if isinstance(field, AttentionField) and part != "positions":
        return {"values": "value_offsets", "scales": "vector_offsets"}[part]
    return "position_offsets" if "/" in name else None
