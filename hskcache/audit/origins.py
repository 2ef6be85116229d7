"""Origin of a cache's fields: which run of which teacher."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hskcache.cache import Cache, Request
from hskcache.errors import MismatchError, SpecError
from hskcache.nearest import meant
from hskcache.spec import ComputeDtype
from hskcache.store.fields import INPUTS


@dataclass(frozen=True)
class Origin:
    """Fields, ``names`` by kind, of one run of one teacher; ``is_own``: the cache was built with them."""

    request: Request
    names: Mapping[str, str]
    is_own: bool


def origins(cache: Cache, fields: Collection[str] | None = None) -> list[Origin]:
    """Origins of the fields that are to be audited.

    ``fields``: names; None: those that the cache was built with. Raises MismatchError if the cache has no such field,
    or does not tell where it comes from; SpecError if a field holds no knowledge, or teachers computed in different
    types.
    """
    manifest = cache.manifest
    built = [name for name in manifest.request.fields if name in cache.fields and name != INPUTS]
    names = built if fields is None else list(dict.fromkeys(fields))
    for name in names:
        if name not in cache.fields:
            known = ", ".join(other for other in cache.fields if other != INPUTS)
            raise MismatchError(f"{cache.name} has no field {name}; it has {known}{meant(name, cache.fields)}")
    if INPUTS in names or not names:
        raise SpecError("there is no knowledge of a teacher to audit in the inputs; name other fields with --field")
    for name in names:
        if name not in built and name not in manifest.added:
            raise MismatchError(f"nothing in {cache.name} tells what the field {name} was made from; leave it out")
    own = {name: name for name in names if name in built}
    sources = [Origin(manifest.request, own, True)] if own else []
    sources += [
        Origin(manifest.request_for(name), {cache.fields[name].kind: name}, False)
        for name in names
        if name not in built
    ]
    if len({one.request.spec.compute_dtype for one in sources}) > 1:
        raise SpecError("the teachers of these fields computed in different types; audit them one by one with --field")
    return sources


def compute_dtype(cache: Cache, fields: Collection[str] | None = None) -> ComputeDtype:
    """Type that the teacher of some fields computed in, and is to be loaded in; raises as :func:`origins` does."""
    return origins(cache, fields)[0].request.spec.compute_dtype
