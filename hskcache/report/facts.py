"""Lines of a page on what a cache is and where it comes from, from its manifest alone."""

from collections.abc import Iterator
from typing import NamedTuple

from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.describe import DESCRIPTIONS, asked
from hskcache.move.card import word
from hskcache.spec import Packing
from hskcache.store.agreement import told
from hskcache.store.fields import KINDS, LOGITS
from hskcache.store.request import TeacherInfo

_MOST_LABELS = 12


class Fact(NamedTuple):
    """A line: what it tells, and whether that is a digest or a name rather than words."""

    name: str
    words: str
    is_code: bool = False


class FieldFact(NamedTuple):
    """A field: its name, what it holds, bytes on disk, and bytes a row without what all rows share."""

    name: str
    holds: str
    num_bytes: int
    bytes_per_row: float


def facts(cache: Cache) -> list[Fact]:
    """Facts of the whole cache."""
    return list(_facts(cache))


def _facts(cache: Cache) -> Iterator[Fact]:
    manifest, request = cache.manifest, cache.manifest.request
    yield from _teacher("teacher", request.teacher)
    for part in request.parts:
        name, split = word(part.name), f", split {part.split}" if part.split else ""
        task = f", task {part.task}" if part.task else ""
        yield Fact(
            "data" if part is request.data else "appended", f"{name}{split}{task}: {counted(part.num_rows, 'row')}"
        )
    names = request.data.label_names
    labels = ", ".join(names[:_MOST_LABELS])
    if len(names) > _MOST_LABELS:
        labels += f" and {len(names) - _MOST_LABELS:,} more"
    if request.data.problem == "multilabel":
        labels += ", any number a row"
    if request.data.problem == "text":
        yield Fact("packing", Packing.model_validate(request.spec.packing.model_dump()).told)
    elif request.data.has_task:
        yield Fact("labels", labels or "scores")
    if request.cut.num_rows:
        yield Fact("cut", request.cut.told(cache.num_rows))
    for flag, keep in asked(request.spec).items():
        pairs = next((KINDS[name].pairs(request) for name, one in DESCRIPTIONS.items() if one.flag == flag), [])
        layers = ", ".join(f"{pair.teacher} to {pair.student}" for pair in pairs)
        yield Fact(flag, keep + (f": teacher layer to student layer {layers}" if layers else ""))
    for name, agreement in manifest.agreement.items():
        who = "the teacher" if name == LOGITS else f"the teacher of {name}"
        if (line := told(agreement, who, request.data.label_names)) is not None:
            yield Fact("at the build", line)
    for one in manifest.evaluations:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items())
        yield Fact("evaluation", f"{scores} on {word(one.data)}, {counted(one.num_rows, 'row')}")
    for name, added in manifest.added.items():
        yield from _teacher(f"teacher of {name}", added.teacher)
    if manifest.part is not None:
        yield Fact(
            "part of", f"{manifest.part.cache_id}, its rows {manifest.part.start:,} to {manifest.part.stop - 1:,}", True
        )
    yield Fact("made with", ", ".join(f"{name} {version}" for name, version in manifest.environment.items()))
    yield Fact("format", f"version {manifest.format_version}, {counted(len(cache.shards), 'shard')}")
    yield Fact("cache id", manifest.cache_id, True)


def _teacher(name: str, teacher: TeacherInfo) -> Iterator[Fact]:
    revision = f", revision {teacher.revision}" if teacher.revision else ""
    heads = counted(teacher.num_heads, "head")
    shape = f"{teacher.model_type}, {counted(teacher.num_layers, 'layer')}, width {teacher.width}, {heads}"
    yield Fact(name, f"{word(teacher.name)}{revision} ({shape})")
    yield Fact("its weights", teacher.weights_sha256, True)


def fields(cache: Cache) -> list[FieldFact]:
    """Fields in the order of the cache, each with whose it is."""
    found = []
    for name, field in cache.fields.items():
        own = DESCRIPTIONS[field.kind].told(field)
        added = cache.manifest.added.get(name)
        whose = "" if added is None else f"; of {word(added.teacher.name)}"
        found.append(FieldFact(name, own + whose, cache.num_bytes(name), cache.bytes_per_row(name)))
    return found
