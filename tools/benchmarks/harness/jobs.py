"""Jobs of the real build from a short description of what to keep, and the caches that they write."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.cache import Cache, open_cache
from hskcache.spec import Attention, ComputeDtype, Depth, EncodingName, Hidden, Length, Spec, Width, parse_keep

if TYPE_CHECKING:
    from hskcache.build.build import Job
    from hskcache.teacher.load import Teacher
    from hskcache.text import Examples


def make_spec(
    keep: str,
    encoding: EncodingName = "int8",
    student_layers: int = 4,
    max_length: int = 128,
    compute_dtype: ComputeDtype = "float32",
) -> Spec:
    """The spec of a short form such as ``1l_10t_0.1h``.

    Raises:
        SpecError: it is not of that form.
    """
    kept = parse_keep(keep)
    if kept is None:
        return Spec(hidden=None, max_length=max_length, compute_dtype=compute_dtype)
    hidden = Hidden(
        depth=Depth(student_layers=student_layers, num_layers=kept.layers),
        length=Length(tokens=kept.tokens),
        width=Width(fraction=kept.fraction),
        encoding=encoding,
    )
    return Spec(hidden=hidden, max_length=max_length, compute_dtype=compute_dtype)


def make_job(teacher: "Teacher", examples: "Examples", spec: Spec) -> "Job":
    """Tokenize the rows and lay the cache out."""
    from hskcache.build.build import prepare_job
    from hskcache.text import tokenize

    return prepare_job(teacher, examples, tokenize(examples, teacher.tokenizer, spec.max_length), spec)


def built(job: "Job", out: Path) -> Cache:
    """The cache of a job in ``out``, built by the real build; shards that are there already are not computed again.

    Raises:
        MismatchError: ``out`` holds a cache of something else.
    """
    from hskcache.build.build import build

    with console.progress("rows") as bar:
        task = bar.add_task(f"build {out.name}", total=len(job.rows))
        build(job, out, lambda rows: bar.advance(task, rows))
    return open_cache(out)


def with_attention(spec: Spec, keep: str, student_layers: int = 4) -> Spec:
    """A spec that keeps attention scores too, as ``8t``, ``1l_8t``, ``full`` or ``none`` says, in the same encoding.

    Raises:
        SpecError: not of that form.
    """
    kept = parse_keep(keep, "--attention")
    if kept is None:
        return spec
    depth = Depth(student_layers=student_layers, num_layers=kept.layers)
    encoding: EncodingName = "int8" if spec.hidden is None else spec.hidden.encoding
    attention = Attention(depth=depth, length=Length(tokens=kept.tokens), encoding=encoding)
    return spec.model_copy(update={"attention": attention})


def real_rows(given: dict[str, Any]) -> "tuple[Teacher, Examples]":
    """The teacher and the rows of ``--teacher``, ``--data`` and ``--task``.

    Raises:
        UsageError: there is no ``--data``.
    """
    from hskcache.teacher.load import load_teacher
    from hskcache.text.layout import Layout

    if given["data"] is None:
        raise click.UsageError("--teacher needs --data, rows of its task")
    teacher = load_teacher(given["teacher"], given["device"])
    layout = Layout(given["task"], None, None, None, None)
    return teacher, layout.read_for(teacher.info.name, teacher.model.config, given["data"])
