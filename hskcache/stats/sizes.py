"""Bytes of a cache by field and layer, from its records alone."""

from collections import Counter

from hskcache.cache import Cache
from hskcache.stats.model import LayerBytes
from hskcache.store.fields import layer_name
from hskcache.store.record import Record, StoredArray


def sizes(cache: Cache) -> list[LayerBytes]:
    """Bytes on disk by field and, where records tell where arrays are, by layer.

    What is of no layer, and in version 1 of the format everything, stands under the layer None.
    """
    found = []
    for name, field in cache.fields.items():
        groups = {layer_name(layer): layer for layer in field.stored_layers}
        counted: Counter[int | None] = Counter()
        for record in cache.manifest.shards[name]:
            _count(record, groups, counted)
        if (constants := cache.manifest.constants.get(name)) is not None:
            _count(constants, groups, counted)
        layers = sorted(one for one in counted if one is not None)
        found += [LayerBytes(field=name, layer=layer, num_bytes=counted[layer]) for layer in (*layers, None)]
    return found


def _count(record: Record, groups: dict[str, int], counted: Counter[int | None]) -> None:
    counted[None] += record.num_bytes
    for name, info in record.arrays.items():
        layer = groups.get(name.partition("/")[0])
        if layer is not None and isinstance(info, StoredArray):
            counted[layer] += info.num_bytes
            counted[None] -= info.num_bytes
