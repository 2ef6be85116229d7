"""Words of ``build`` and ``append`` on the cache that they have written."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hskcache import console
from hskcache.counted import counted
from hskcache.errors import CacheError

if TYPE_CHECKING:
    from hskcache.store.manifest import Manifest


def facts(manifest: "Manifest", out: Path | str, first_row: int = 0) -> dict[str, Any]:
    """Facts of a cache for programs; of what was left out, the rows from ``first_row`` on."""
    return {
        "cache": str(out),
        "cache_id": manifest.cache_id,
        "num_rows": manifest.request.num_rows,
        "num_bytes": num_bytes(manifest),
        "num_skipped": {field: len(rows) for field, rows in _skipped(manifest, first_row).items()},
        "agreement": {name: one.to_json() for name, one in manifest.agreement.items()},
        "evaluations": [one.model_dump(mode="json") for one in manifest.evaluations],
    }


def reached(out: Path | str, name: str | None = None) -> str:
    """Point that the same build, or addition of the field ``name``, goes on from after an interrupt."""
    from hskcache.build.places import site_at

    try:
        site = site_at(out)
        request = site.request()
        if request is None:
            return "the start"
        fields = request.fields if name is None else (name,)
        shards = range(request.num_shards)
        done = [all(site.ledger.committed(field, shard) is not None for field in fields) for shard in shards]
    except CacheError:
        return "the start"
    return f"there: {sum(done):,} of {len(done):,} shards are kept" if any(done) else "the start"


def num_bytes(manifest: "Manifest") -> dict[str, int]:
    """Bytes of the rows of each field."""
    return {field: records.num_bytes for field, records in manifest.shards.items()}


def tell_skipped(manifest: "Manifest", out: Path | str, field: str | None = None, first_row: int = 0) -> None:
    """Say which rows from ``first_row`` on were left out of a field, or of all where ``field`` is None."""
    total = manifest.request.num_rows - first_row
    for name, rows in _skipped(manifest, first_row).items():
        if rows and field in {None, name}:
            console.say(
                f"{len(rows):,} of {total:,} rows are left out of {name}, as their values are not finite; row "
                f"{rows[0]}, counted from 0, is the first, the records in {out}/{name} list all"
            )


def tell_agreement(manifest: "Manifest", field: str | None = None) -> None:
    """Say how far the teacher that ran for a field, None: the own logits, agrees with the labels, if there are any."""
    from hskcache.store.fields import LOGITS

    name = field or LOGITS
    if (line := _agreement(manifest, name)) is not None:
        console.say(line)


def evaluations(known: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each data set that the teacher was scored on, from the manifest's ``evaluations`` as plain values."""
    lines = []
    for one in known:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in one["metrics"].items())
        lines.append(f"the teacher has {scores} on {one['data']}, {counted(one['num_rows'], 'row')}")
    return lines


def agreements(manifest: "Manifest") -> dict[str, str]:
    """A line for every field of logits whose agreement with the labels is known."""
    lines = {name: _agreement(manifest, name) for name in manifest.agreement}
    return {name: line for name, line in lines.items() if line is not None}


def _agreement(manifest: "Manifest", name: str) -> str | None:
    from hskcache.store.agreement import told
    from hskcache.store.fields import LOGITS

    agreement = manifest.agreement.get(name)
    if agreement is None:
        return None
    who = "the teacher" if name == LOGITS else f"the teacher of {name}"
    return told(agreement, who, manifest.request.data.label_names)


def _skipped(manifest: "Manifest", first_row: int) -> dict[str, list[int]]:
    return {
        field: [one.row for one in records.skipped() if one.row >= first_row]
        for field, records in manifest.shards.items()
    }
