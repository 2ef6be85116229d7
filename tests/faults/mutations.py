"""Changes of JSON, of arrays and of zips to what no honest program writes."""

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hskcache.store.grid import DTYPES
from hskcache.store.shard import pack_shard

NASTY: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 255, 65536, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400, 0.5, 1e308),
    *(float("nan"), float("inf"), "", ".", "..", "../x", "/etc/passwd", "inputs/../../x", "a/b", "\x00", "a" * 10_000),
    *("\U0001d518\u202e", "inputs", "constants", "0" * 64, "float32", "int8", "object", "O", "V8", "__class__"),
    *([], {}, [[]], [0] * 10_000, [0, 1, 2], {"": None}, {"shape": [1 << 40], "dtype": "int8"}),
)


def mutate(document: Any, draw: random.Random) -> str:
    """Change one thing somewhere in a JSON document; what, in words."""
    *path, key = draw.choice(list(_paths(document)))
    place = document
    for step in path:
        place = place[step]
    where, value = "/".join(map(str, [*path, key])), place[key]
    way = draw.choice(("nasty", "nasty", "nasty", "near", "near", "gone", "more", "other"))
    if way == "gone":
        del place[key]
        return f"{where} is gone"
    if way == "more" and isinstance(value, list):
        value += value[: draw.choice((1, len(value)))]
        return f"{where} is longer"
    if way == "more" and isinstance(value, dict):
        value[str(draw.choice(NASTY))[:100]] = draw.choice(NASTY)
        return f"{where} has another key"
    if way == "other":
        *other_path, other = draw.choice(list(_paths(document)))
        found = document
        for step in other_path:
            found = found[step]
        place[key] = json.loads(json.dumps(found[other]))
        return f"{where} is what {'/'.join(map(str, [*other_path, other]))} was"
    if way == "near" and isinstance(value, int):
        place[key] = draw.choice((value + 1, value - 1, value * 2, -value, value * 10**6, float(value)))
    elif way == "near" and isinstance(value, str) and value:
        at = draw.randrange(len(value))
        place[key] = value[:at] + chr(draw.choice((0, 46, 47, 92, 0x130, 0x1F600))) + value[at + draw.randint(0, 1) :]
    else:
        place[key] = draw.choice(NASTY)
    return f"{where} is {place[key]!s:.60}"


def _paths(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a JSON document."""
    keys = document.keys() if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield (*above, key)
        yield from _paths(document[key], (*above, key))


def change(arrays: dict[str, Any], draw: random.Random) -> str:
    """Change one array of a shard."""
    if not arrays:
        return "nothing is left"
    name = draw.choice(list(arrays))
    array = arrays[name].copy()
    way = draw.choice(("value", "value", "value", "value", "all", "length", "type", "axis", "gone", "more"))
    if way in {"value", "all"} and array.size:
        flat = array.reshape(-1)
        places = slice(None) if way == "all" else [draw.randrange(flat.size) for _ in range(draw.randint(1, 4))]
        flat[places] = _value(array.dtype, draw)
    elif way == "length":
        array = np.resize(array, (draw.choice((0, 1, len(array) + 1, 2 * len(array))), *array.shape[1:]))
    elif way == "type":
        with np.errstate(all="ignore"):
            array = array.astype(draw.choice(sorted(DTYPES)))
    elif way == "axis":
        array = draw.choice((array.reshape(-1), array[None], array[..., None]))
    elif way == "gone":
        del arrays[name]
        return f"{name} is gone"
    else:
        arrays["more"] = array
        return "an array more"
    arrays[name] = array
    return f"{name}: {way}"


def _value(dtype: Any, draw: random.Random) -> Any:
    if dtype.kind == "f":
        return draw.choice((np.nan, np.inf, -np.inf, np.finfo(dtype).max, 0.0))
    limits = np.iinfo(dtype)
    return draw.choice((limits.min, limits.max, 0, 1, draw.randint(int(limits.min), int(limits.max))))


def headers(data: bytes) -> list[int]:
    """Where headers begin in a zip."""
    found = []
    for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"):
        at = data.find(mark)
        while at >= 0:
            found.append(at)
            at = data.find(mark, at + 1)
    return found


def shared(data: bytes, draw: random.Random) -> bytes:
    """A zip in whose directory entries point at another's content."""
    changed = bytearray(data)
    directory = [at for at in headers(data) if data[at : at + 4] == b"PK\x01\x02"]
    source, target = draw.choice(directory), draw.choice(directory)
    changed[target + 42 : target + 46] = data[source + 42 : source + 46]
    return bytes(changed)


def unbounded(arrays: Mapping[str, Any]) -> bytes:
    """A shard as ``pack_shard`` would write it if it wrote anything."""
    from hskcache.store import shard

    bound, shard.HARMLESS_BYTES = shard.HARMLESS_BYTES, shard.MAX_SHARD_BYTES
    try:
        return pack_shard(arrays)
    finally:
        shard.HARMLESS_BYTES = bound
