"""A view worked out from a manifest: the narrower request, and the fields that a build of it would store."""

from collections.abc import Collection, Mapping

from hskcache.counted import counted
from hskcache.errors import MismatchError
from hskcache.nearest import meant
from hskcache.resolved import resolve_spec
from hskcache.spec import Kept
from hskcache.store.fields import INPUTS, kind_of
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.manifest import Added, Manifest, Part, Request
from hskcache.store.record import CONSTANTS, ArrayInfo, Record
from hskcache.store.shelf import Shelf
from hskcache.views.abc import Narrowed, Narrowing, ViewedField
from hskcache.views.attention import AttentionNarrowing
from hskcache.views.embedding import EmbeddingNarrowing
from hskcache.views.hidden import HiddenNarrowing
from hskcache.views.records import ViewFormat, ViewRecords
from hskcache.views.shelf import ViewedCache, ViewShelf
from hskcache.views.view import View
from hskcache.views.vocabulary import VocabularyNarrowing

NARROWINGS: dict[str, Narrowing] = {
    "hidden": HiddenNarrowing(),
    "attention": AttentionNarrowing(),
    "embedding": EmbeddingNarrowing(),
    "vocabulary": VocabularyNarrowing(),
}
"""Narrowings by kind; of another kind rows alone can be fewer."""


def viewed(manifest: Manifest, shelf: Shelf, view: View) -> tuple[Manifest, Shelf]:
    """The manifest and the shelf of a view; those of the cache itself where the view sees all of it.

    Args:
        manifest: of a cache.
        shelf: of the cache.
        view: what to see of it.

    Raises:
        MismatchError: the cache has no such fields, rows, layers or positions, or a build of the view would have given
            other values than the cache holds; tells why.
        SpecError: the view contradicts how the cache was built.
    """
    origin = ViewedCache(manifest, shelf)
    names, (first, rows) = _names(origin, view), _rows(origin, view)
    request = _narrower(manifest.request, view, names)
    fields = {name: _narrowed(origin, name, view) for name in names}
    if rows != (0, request.num_rows):
        request = request.between(*rows)
    if request == manifest.request and {name: one.field for name, one in fields.items()} == manifest.fields:
        return manifest, shelf
    # What is known of the labels is known of originals.
    is_whole = request.num_originals == manifest.request.num_originals
    seen = manifest.model_copy(
        update={
            "format": ViewFormat(manifest, rows[0]),
            "request": request,
            "request_digest": request.digest,
            "fields": {name: one.field for name, one in fields.items()},
            "shards": {name: ViewRecords(manifest.shards[name], one, request, first) for name, one in fields.items()},
            "constants": _constants(manifest, fields),
            "added": {name: _added(manifest, name, view) for name in manifest.added if name in names},
            "part": _part(manifest, request, names, rows),
            "agreement": {name: one for name, one in manifest.agreement.items() if is_whole and name in names},
        }
    )
    return seen.signed(), ViewShelf(str(view), origin, fields, first)


def _names(origin: ViewedCache, view: View) -> list[str]:
    """The fields of a view, in the order of the cache."""
    fields = origin.manifest.fields
    if view.fields is None:
        return list(fields)
    if unknown := set(view.fields) - fields.keys():
        known, near = ", ".join(fields), meant(min(unknown), fields)
        raise MismatchError(f"{origin.shelf.name} has no field {min(unknown)}; it has {known}{near}")
    return [name for name in fields if name == INPUTS or name in view.fields]


def _rows(origin: ViewedCache, view: View) -> tuple[int, tuple[int, int]]:
    """The shard that a view begins with, and its rows [start, stop)."""
    request, where = origin.manifest.request, origin.shelf.name
    start, stop = (0, request.num_rows) if view.rows is None else view.rows
    if stop > request.num_rows:
        raise MismatchError(f"{where} has no rows {start} to {stop - 1}; it has {request.num_rows}, counted from 0")
    if view.copies is not None:
        stop = min(stop, num_with(request, view.copies, where))
        if start >= stop:
            raise MismatchError(
                f"{where} has {counted(stop, 'row')} with copies={view.copies}, and none from {start} on"
            )
    shard = request.shards.shard_of(start)
    if start != (before := request.shards[shard][0]):
        raise MismatchError(
            f"rows from {start} of {where} are asked for, and a view begins with a shard, such as that of row {before}"
        )
    return shard, (start, stop)


def num_with(request: Request, copies: int, where: str) -> int:
    """Rows of a cache up to the last one that is among the first so many copies of its original, which are the first.

    Raises:
        MismatchError: it is not known which rows are copies, there are no so many, or rows were appended in another
            order.
    """
    parts = request.parts
    if not all(part.copies for part in parts):
        raise MismatchError(
            f"{where} does not know which of its rows are copies; build it of a table with the columns origin and "
            "copy, as hskcache augment writes it, or name the latter's number with --copy"
        )
    if copies > (most := max(len(part.copies) for part in parts) - 1):
        raise MismatchError(f"{counted(copies, 'copy', 'copies')} of a row are asked for, and {where} has {most}")
    counts = [sum(part.copies[: copies + 1]) for part in parts]
    whole = next((place for place, part in enumerate(parts) if counts[place] < part.num_rows), len(parts))
    if any(counts[whole + 1 :]):
        raise MismatchError(
            f"{where} had rows appended after copies that a view of {copies} leaves out; build one cache of all rows"
        )
    return sum(counts)


def _narrower(request: Request, view: View, names: Collection[str]) -> Request:
    """A request with what the view asks for in place of its own; nothing is asked of kinds that are not among names."""
    sections: dict[str, Kept | None] = {}
    for name, kept in request.spec.sections.items():
        if kept is not None and name not in names:
            sections[name] = None
        elif kept is not None and name in NARROWINGS and (changed := NARROWINGS[name].spec(view, kept)) is not kept:
            sections[name] = changed
    if not sections:
        return request
    spec = resolve_spec(request.spec.with_sections(sections), request.teacher)
    narrowed = [NARROWINGS[name] for name in sections if name in NARROWINGS]
    pairs = {key: one for narrowing in narrowed for key, one in narrowing.pairs(spec, request.teacher).items()}
    return request.model_copy(update={"spec": spec, **pairs})


def _narrowed(origin: ViewedCache, name: str, view: View) -> Narrowed:
    """A field of the view."""
    field, request = origin.manifest.fields[name], origin.manifest.request_for(name)
    narrower = _narrower(request, view, request.spec.sections)
    if narrower is request or field.kind not in NARROWINGS:
        return Narrowed(field, field)
    kept, was_kept = (one.spec.sections.get(field.kind) for one in (narrower, request))
    if kept is None or kept == was_kept:
        return Narrowed(field, field)
    narrowed = NARROWINGS[field.kind].field(ViewedField(f"{name} of {origin.shelf.name}", field, request), kept)
    return narrowed if narrowed.field != field or narrowed.told else Narrowed(field, field)


def _constants(manifest: Manifest, fields: Mapping[str, Narrowed]) -> dict[str, Record]:
    """Records of what all rows of each field share; one that the cache shares nothing of has none on disk."""
    found = {name: record for name, record in manifest.constants.items() if name in fields}
    for name, narrowed in fields.items():
        arrays = kind_of(narrowed.field).constants(narrowed.field)
        if arrays and name not in found:
            shapes = {one: ArrayInfo(shape=list(array.shape), dtype=array.dtypes[0]) for one, array in arrays.items()}
            digest = sha256_hex(canonical_json([name, narrowed.field.model_dump(mode="json"), *narrowed.told]))
            found[name] = Record(
                field=name, shard=CONSTANTS, start=0, stop=0, num_bytes=0, sha256=digest, arrays=shapes
            )
    return found


def _added(manifest: Manifest, name: str, view: View) -> Added:
    """Origin that an added field of the view would have."""
    request = manifest.request_for(name)
    narrower = _narrower(request, view, request.spec.sections)
    changes = {key: getattr(narrower, key) for key in ("spec", "layers", "attention_layers")}
    return manifest.added[name].model_copy(update=changes)


def _part(manifest: Manifest, request: Request, names: Collection[str], rows: tuple[int, int]) -> Part | None:
    """Whole of which the view is a part, where no build would give its rows or fields."""
    is_built = manifest.part is None and rows == (0, manifest.request.num_rows) and set(request.fields) <= set(names)
    if is_built:
        return None
    whole = manifest.cache_id if manifest.part is None else manifest.part.cache_id
    return Part(cache_id=whole, start=manifest.first_row + rows[0], stop=manifest.first_row + rows[1])
