"""``hskcache info``: what a cache holds."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, units
from hskcache.cli.options import cache_or_url_argument
from hskcache.cli.outcome import agreements, evaluations
from hskcache.counted import counted
from hskcache.cut import Cut
from hskcache.options import as_json, view
from hskcache.spec import Packing, Windows
from hskcache.store.provenance import LanguageMade

if TYPE_CHECKING:
    from hskcache.cache import Cache
    from hskcache.store.manifest import Manifest

_WORTH_TELLING = 0.1
"""Share of a field's bytes from which on it is told that they stand there once."""


@click.command()
@cache_or_url_argument
@click.option("--spec", "as_spec", is_flag=True, help="Print the resolved spec as YAML, as `build --spec` takes it.")
@view("Show a part of the cache")
@as_json
def info(cache: str, as_spec: bool, view: str, as_json: bool) -> None:
    """Show what is in a cache: rows, fields, bytes, teacher, data. At a URL only its manifest is read."""
    from hskcache.describe import DESCRIPTIONS
    from hskcache.remote.place import open_any

    opened = open_any(cache).view(view)
    if as_spec:
        import yaml

        click.echo(yaml.safe_dump(opened.manifest.request.spec.model_dump(), sort_keys=False), nl=False)
        return
    facts = describe(opened) | {"view": view or None, "growing": [] if view else _growing(opened)}
    if as_json:
        console.print_json(facts)
    else:
        _print(facts, {name: DESCRIPTIONS[field.kind].told(field) for name, field in opened.fields.items()})


def describe(cache: "Cache") -> dict[str, Any]:
    """The facts of a cache as plain values; sizes in bytes on disk."""
    from hskcache.describe import DESCRIPTIONS, asked
    from hskcache.store.fields import KINDS

    manifest = cache.manifest
    request = manifest.request
    told = request.model_dump(exclude={"teacher": {"config"}})
    fields = {
        name: {
            **field.model_dump(exclude_none=True),
            "num_bytes": cache.num_bytes(name),
            "num_shared_bytes": manifest.shared_bytes(name),
            "bytes_per_row": cache.bytes_per_row(name),
            "num_skipped": len({one.row for one in manifest.shards[name].skipped()}),
            **_provenance(manifest, name),
        }
        for name, field in manifest.fields.items()
    }
    return {
        "cache": cache.name,
        "cache_id": cache.id,
        "format_version": manifest.format_version,
        **asked(request.spec),
        "num_rows": cache.num_rows,
        "num_shards": len(cache.shards),
        "num_bytes": sum(cache.num_bytes(name) for name in fields),
        "fields": fields,
        **{
            one.pairs: [dict(pair) for pair in KINDS[name].pairs(request)]
            for name, one in DESCRIPTIONS.items()
            if one.pairs
        },
        **{name: told[name] for name in ("teacher", "tokenizer", "data", "appended")},
        "cut": asdict(request.cut),
        "part": manifest.part.model_dump() if manifest.part is not None else None,
        "spec": told["spec"],
        "environment": manifest.environment,
        "agreement": {
            name: {**manifest.agreement[name].to_json(), "told": line} for name, line in agreements(manifest).items()
        },
        "evaluations": [one.model_dump() for one in manifest.evaluations],
    }


def _growing(cache: "Cache") -> list[str]:
    """Files that tell of fields and rows on their way, or cut off, each with what is to be said of it."""
    from hskcache.store.growing import growing
    from hskcache.store.shelf import Directory

    if not isinstance(cache.shelf, Directory):
        return []
    return [f"{one.file} {one.what}" for one in growing(cache.root, cache.manifest)]


def _provenance(manifest: "Manifest", name: str) -> dict[str, Any]:
    """Origin of a field that was added to the cache; empty for its own, which the cache itself tells."""
    from hskcache.store.fields import KINDS

    added = manifest.added.get(name)
    if added is None:
        return {}
    told = added.model_dump(include={"teacher", "spec", "environment"}, exclude={"teacher": {"config"}})
    return {
        **told,
        # Not "layers": that is what the field itself stores.
        "layer_pairs": [dict(pair) for kind in KINDS.values() for pair in kind.pairs(added)],
    }


def _print(facts: dict[str, Any], told: dict[str, str]) -> None:
    """Print the facts of a cache; ``told`` is what each field stores, by name."""
    from hskcache.describe import DESCRIPTIONS

    teacher, data, num_rows = facts["teacher"], facts["data"], facts["num_rows"]
    architecture = f"{teacher['model_type']}, {counted(teacher['num_layers'], 'layer')}, width {teacher['width']}"
    without = {"text": "plain text", "none": "texts without a task", "language": "next tokens of texts"}
    labels = without.get(data["problem"]) or f"labels {', '.join(data['label_names']) or 'are scores'}"
    labels += ", any number a row" if data["problem"] == "multilabel" else ""
    lines = [
        ("cache", f"{facts['cache']}  (id {facts['cache_id'][:12]}, format {facts['format_version']})"),
        *(
            ("part of", f"cache {part['cache_id'][:12]}, of its rows {part['start']:,} to {part['stop'] - 1:,}")
            for part in (facts["part"],)
            if part is not None
        ),
        *((("view", f"{facts['view']}  (bytes are those that it is read from)"),) if facts["view"] is not None else ()),
        ("teacher", f"{teacher['name']}  ({architecture})"),
        ("data", f"{data['name']}  ({counted(num_rows, 'row')}, {counted(facts['num_shards'], 'shard')}, {labels})"),
        *(("appended", f"{part['name']}  ({part['num_rows']:,} of the rows)") for part in facts["appended"]),
        *_copies([data, *facts["appended"]]),
        *_read_as(facts),
        *(
            (one.flag, f"{facts[one.flag]}  (teacher layer -> student layer: {_pairs(facts[one.pairs])})")
            for one in DESCRIPTIONS.values()
            if one.flag
        ),
        *(("labels", one["told"]) for one in facts["agreement"].values()),
        *(("evaluation", line) for line in evaluations(facts["evaluations"])),
        *(("unfinished", line) for line in facts["growing"]),
        ("made with", ", ".join(f"{name} {version}" for name, version in facts["environment"].items())),
    ]
    console.print_columns(lines, gap=2)
    rows = []
    for name, field in facts["fields"].items():
        what = told[name] + (f"; of {field['teacher']['name']}" if "teacher" in field else "")
        if field["num_skipped"]:
            what += f"; without {counted(field['num_skipped'], 'row')} that were not finite"
        if field["num_shared_bytes"] > field["num_bytes"] * _WORTH_TELLING:
            what += f"; {units.human_bytes(field['num_shared_bytes'])} of it once for all rows"
        if pairs := field.get("layer_pairs"):
            what += f" ({_pairs(pairs)})"
        rows.append((name, what, units.human_bytes(field["num_bytes"]), f"{field['bytes_per_row']:,.1f}"))
    a_row = sum(field["bytes_per_row"] for field in facts["fields"].values())
    rows.append(("total", "", units.human_bytes(facts["num_bytes"]), f"{a_row:,.1f}"))
    console.print_columns(rows, ("field", "what", "bytes", "bytes a row"), right=(2, 3))


def _copies(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Originals and copies among the rows, where that is known."""
    counts = [part["copies"] for part in parts if "copies" in part]
    if not counts:
        return []
    most, num_originals = max(map(len, counts)) - 1, sum(count[0] for count in counts)
    made = counted(sum(map(sum, counts)) - num_originals, "copy", "copies")
    return [("copies", f"{counted(num_originals, 'original')} and {made}, up to {most} of a text")]


def _left_out(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Rows of the data that were left out, or kept without a label, as far as the manifest tells."""
    known = [part["provenance"] for part in parts if part["provenance"] is not None]
    lines = []
    if num_bad := sum(part["num_bad"] for part in known):
        first = next(row for part in known for row in part["bad"])
        lines.append(
            ("bad rows", f"{num_bad:,} left out; the first is line or row {first['number']:,}: {first['reason']}")
        )
    for policy, words in (("skip", "left out"), ("keep", "kept")):
        if count := sum(part["num_unlabelled"] for part in known if part["unlabelled"] == policy):
            lines.append(("unlabelled", f"{counted(count, 'row')} without a gold label {words}"))
    return lines


def _read_as(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on how the rows were read, as far as the manifest tells."""
    lines, data = [], facts["data"]
    columns = (data["provenance"] or {}).get("columns")
    if columns is not None:
        listed = (columns[name] for name in ("text", "text_pair", "label"))
        task = f"  (task {data['task']})" if data["task"] is not None else ""
        lines.append(("columns", ", ".join(str(column) for column in listed if column is not None) + task))
    if data["problem"] == "text":
        lines.append(("packing", Packing.model_validate(facts["spec"]["packing"]).told))
    if (windows := facts["spec"].get("windows")) is not None:
        lines.append(("windows", f"rows {Windows.model_validate(windows).told}"))
    lines += _language([data, *facts["appended"]])
    lines += _left_out([data, *facts["appended"]])
    cut = Cut(**facts["cut"])
    if cut.num_rows:
        lines.append(("cut", f"{cut.told(facts['num_rows'])}; the longest had {cut.longest:,}"))
    return lines


def _language(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Lines on how rows of a language model were made, and how many tokens are to be predicted."""
    known = [(part["provenance"] or {}).get("language") for part in parts]
    made = [LanguageMade.model_validate(one) for one in known if one is not None]
    counts = [one.num_targets for one in made]
    lines = [("rows", one.told) for one in made]
    if counts and None not in counts:
        lines.append(("targets", f"{sum(filter(None, counts)):,} tokens are predicted"))
    return lines


def _pairs(pairs: list[dict[str, int]]) -> str:
    return ", ".join(f"{pair['teacher']}->{pair['student']}" for pair in pairs) or "none"
