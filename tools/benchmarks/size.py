"""Bytes on disk of the hidden knowledge of a row, by width scheme and encoding."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec, real_rows
from benchmarks.harness.measure import environment
from hskcache.cache import HiddenField
from hskcache.encoded import ENCODED
from hskcache.spec import Keep, parse_keep

if TYPE_CHECKING:
    from hskcache.cache import Cache
    from hskcache.teacher.load import Teacher
    from hskcache.text import Examples

SCHEMES = ("magnitude", "uniform", "random", "pca", "all")
FULL_LAYERS, FULL_LENGTH = 7, 128
TARGET_BYTES = 1250.0


class States(NamedTuple):
    """The kept states of a cache, all columns in float32.

    Attributes:
        shards: by shard, its stored arrays; ``values`` [P, D] float32 tensors among them.
        width: D.
        num_rows: N.
    """

    shards: list[dict[str, Any]]
    width: int
    num_rows: int


def read_states(cache: "Cache") -> States:
    """Every shard of a cache that keeps all columns in float32."""
    shards = [cache.read("hidden", shard) for shard in range(len(cache.shards))]
    hidden = cache.fields["hidden"]
    assert isinstance(hidden, HiddenField)
    return States(shards, hidden.width, cache.num_rows)


def layers_of(arrays: dict[str, Any]) -> list[str]:
    """``layer_12`` and so on."""
    return sorted({name.partition("/")[0] for name in arrays if "/" in name})


class Width(NamedTuple):
    """A width scheme made ready: what to store of states [P, D], and what all rows share."""

    scheme: str
    fraction: float
    constants: dict[str, Any]

    def narrow(self, layer: str, states: Any) -> tuple[Any, dict[str, Any]]:
        """Kept values [P, W] and the arrays that say which columns they are."""
        from hskcache.encoded import column_bytes
        from hskcache.encoding.bitmask import pack_columns
        from hskcache.selection.columns import num_columns
        from hskcache.selection.width import magnitude_columns

        width = states.shape[1]
        if self.scheme == "all":
            return states, {}
        if self.scheme == "pca":
            components = self.constants[layer]
            return (states - components.mean) @ components.basis.T, {}
        if self.scheme in {"uniform", "random"}:
            return states.index_select(1, self.constants[layer]), {}
        kept = num_columns(width, self.fraction)
        columns = magnitude_columns(states, kept)
        values = states.gather(1, columns)
        if column_bytes(kept, width)[0] == "bitmask":
            return values, {f"{layer}/bitmask": pack_columns(columns, width).numpy()}
        return values, {f"{layer}/columns": columns.numpy().astype(np.uint16)}


def make_width(scheme: str, fraction: float, states: States) -> Width:
    """A scheme with its shared columns, or components fitted on the states themselves."""
    import torch

    from hskcache.selection.columns import num_columns, uniform_columns
    from hskcache.selection.width import pca_components, random_columns

    constants: dict[str, Any] = {}
    kept = num_columns(states.width, fraction)
    for layer in layers_of(states.shards[0]):
        if scheme == "pca":
            sample = np.concatenate([arrays[f"{layer}/values"] for arrays in states.shards])
            constants[layer] = pca_components(torch.from_numpy(sample), kept)
        elif scheme == "uniform":
            constants[layer] = torch.tensor(uniform_columns(states.width, fraction))
        elif scheme == "random":
            constants[layer] = random_columns(states.width, kept, seed=0)
    return Width(scheme, fraction, constants)


def bytes_per_row(states: States, width: Width, encoding: str) -> float:
    """Stored size of the hidden field, shard by shard as a build writes it; what all rows share is left out."""
    import torch

    from hskcache.encoding import get_encoding
    from hskcache.store.version2 import VERSION_2

    codec, total = get_encoding(encoding), 0
    for arrays in states.shards:
        stored = {name: array for name, array in arrays.items() if not name.endswith("/values")}
        for layer in layers_of(arrays):
            values, columns = width.narrow(layer, torch.from_numpy(arrays[f"{layer}/values"]))
            stored |= columns
            stored |= {f"{layer}/{part}": tensor.numpy() for part, tensor in codec.encode(values).items()}
        total += len(VERSION_2.pack(stored))
    return total / states.num_rows


class Case(NamedTuple):
    """A teacher and its rows."""

    name: str
    title: str
    teacher: "Teacher"
    examples: "Examples"


def cases(work: Path, given: dict[str, Any]) -> list[Case]:
    """Random weights of BERT-base's shape over random words, and the given teacher over real text."""
    found = []
    if given["rows"]:
        lengths = synthetic.fixed_lengths(given["rows"], FULL_LENGTH)
        rows = synthetic.random_rows(work / "size.tsv", lengths)
        teacher = synthetic.random_teacher(given["shape"], work, given["device"])
        title = f"{given['shape']} shape, random weights, {given['rows']} rows of random words"
        found.append(Case(f"random_{given['shape']}", title, teacher, rows))
    if given["teacher"] is not None:
        teacher, rows = real_rows(given)
        found.append(Case("given", f"{given['teacher']}, {len(rows)} rows of {given['data']}", teacher, rows))
    return found


def full_bytes(width: int) -> int:
    """All states of a row that a 6-layer student can learn from, in float32, at L = 128."""
    return FULL_LAYERS * FULL_LENGTH * width * 4


def measure(case: Case, work: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Bytes per row as built, and for every encoding and width scheme from the same states."""
    keep = parse_keep(given["keep"]) or Keep(1, 10, 0.1)
    every = "_".join(f"{count}{unit}" for count, unit in ((keep.layers, "l"), (keep.tokens, "t")) if count) or "full"
    rows = len(case.examples)
    job = make_job(case.teacher, case.examples, make_spec(given["keep"], "int8", given["student_layers"]))
    headline = built(job, work / "size" / f"{case.name}_{rows}_{given['keep']}.hsk")
    # The same shards as the headline's, so that the two compress alike.
    spec = make_spec(every, "float32", given["student_layers"])
    wide = make_job(case.teacher, case.examples, spec.model_copy(update={"shard_rows": job.layout.shard_rows}))
    states = read_states(built(wide, work / "size" / f"{case.name}_{rows}_{every}_float32.hsk"))
    table = {
        scheme: {name: bytes_per_row(states, width, name) for name in ENCODED}
        for scheme, width in ((scheme, make_width(scheme, keep.fraction, states)) for scheme in SCHEMES)
    }
    return {
        "title": case.title,
        "width": states.width,
        "num_rows": states.num_rows,
        "mean_length": float(job.layout.lengths_N.mean()),
        "built_bytes_per_row": headline.num_bytes("hidden") / states.num_rows,
        "bytes_per_row": table,
        "full_bytes_per_row": full_bytes(states.width),
    }


@click.command()
@click.option("--shape", type=click.Choice(list(synthetic.SHAPES)), default="bert-base", show_default=True)
@options.count("--rows", 128, "Of the random case; 0 skips it.", at_least=0)
@options.real_teacher
@options.count("--student-layers", 6)
@options.keep
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Measure the stored bytes of hidden knowledge per row, for every encoding and width scheme.

    Random weights and random words give states without structure, so their column masks and values compress least:
    an upper bound. A real teacher on real text gives less.
    """
    from hskcache.runtime import quiet

    with quiet():
        found = {case.name: measure(case, work, given) for case in cases(work, given)}
    texts, targets = [], []
    for name, facts in found.items():
        full, built_bytes = facts["full_bytes_per_row"], facts["built_bytes_per_row"]
        rows = [
            [scheme, *(f"{sizes[encoding]:,.0f}" for encoding in ENCODED)]
            for scheme, sizes in facts["bytes_per_row"].items()
        ]
        title = f"{facts['title']}\n{given['keep']}, D={facts['width']}, bytes per row by width scheme and encoding"
        summary = (
            f"  as built (magnitude, int8): {built_bytes:,.1f} bytes, {100 * built_bytes / full:.3f} % of the "
            f"{full:,} bytes of {FULL_LAYERS} layers in float32 at L={FULL_LENGTH}"
        )
        texts.append(report.table(title, ("width", *ENCODED), rows) + "\n" + summary)
        targets.append(report.Target(f"bytes per row, {name}", built_bytes, TARGET_BYTES))
    facts = {"settings": given, "environment": environment(given["device"]), "cases": found}
    report.conclude(facts, texts, targets, as_json)
