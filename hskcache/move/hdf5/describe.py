"""Attributes of an HDF5 file, for those who read it without hskcache."""

from typing import Any

from hskcache.move.hdf5.layout import StoredDataset, derived_name
from hskcache.store.fields import AXES, StoredField, kind_of
from hskcache.store.kinds.abc import Meaning
from hskcache.store.manifest import Manifest


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


def dataset_attributes(field: StoredField, name: str, stored: StoredDataset, is_constant: bool) -> dict[str, str]:
    """Attributes of a dataset: what its axes count, what it holds, and which offsets divide it into rows."""
    meaning = kind_of(field).meanings.get((name.rpartition("/")[2], len(stored.shape)), Meaning((), ""))
    attributes = {"axes": ", ".join(meaning.dimensions), "about": meaning.about}
    offsets = None if is_constant or stored.is_offsets else _offsets(field, name)
    if offsets is not None:
        attributes["offsets"] = f"/{stored.path.partition('/')[0]}/{offsets}"
    return attributes


def _offsets(field: StoredField, name: str) -> str | None:
    kind = kind_of(field)
    axis = kind.axis(name)
    return derived_name(axis) if axis in kind.derived else AXES[axis]
