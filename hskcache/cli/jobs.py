"""From a command line to a job of the teacher; needs torch, so commands import it when they run."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hskcache import console
from hskcache.cli.options import PAIR_DEFAULTS, build_spec, refuse_packing
from hskcache.disk import require_writable
from hskcache.errors import CacheError, SpecError
from hskcache.spec import SECTIONS, Packing, Spec
from hskcache.store.ledger import Ledger
from hskcache.text import tokenized
from hskcache.text.corpus import check_corpus
from hskcache.text.cut import tell_cut
from hskcache.text.layout import Layout
from hskcache.text.remembered import of_model
from hskcache.text.tokenize import reach_of

if TYPE_CHECKING:
    from hskcache.build.addition import Addition
    from hskcache.build.corpus import CorpusBuild
    from hskcache.build.job import Job


class Rows(NamedTuple):
    """A data file and which of its columns to read, or a corpus."""

    source: str | None
    layout: Layout
    corpus: Path | None = None

    def check(self) -> None:
        """See that there is one source, and no columns of a corpus.

        Raises:
            SpecError: there is none, or both, or columns are named of plain text.
        """
        if (self.source is None) == (self.corpus is None):
            given = "both were given" if self.source is not None else "neither was given"
            raise SpecError(f"give --data FILE for rows of a task or --corpus FILE for plain text; {given}")
        if self.corpus is not None and not self.layout.is_empty:
            raise SpecError(
                "--corpus is plain text without columns; leave out --task, columns, --classes and what is said of rows"
            )


def spec_for(given: dict[str, Any], teacher: str, rows: Rows, out: Path | None = None) -> Spec:
    """The spec of a command line, see build_spec.

    Where nobody says how long rows of a task may be, they are as long as those of the cache that is gone on with, those
    that the teacher was trained on, or those of the task, the first of these that is known.

    Args:
        given: the flags by name.
        teacher: folder or hub id.
        rows: the data.
        out: where the cache will be, or is begun; None where there will be none.

    Raises:
        CacheError: a flag is out of range, or what is remembered beside the teacher cannot be read.
    """
    spec = build_spec(given)
    if rows.corpus is None:
        refuse_packing(given)
    if rows.corpus is not None or given["max_length"] is not None or given["spec_file"] is not None:
        return spec
    length, where = _known_length(teacher, rows, out)
    if length is None or length == spec.max_length:
        return spec
    console.say(f"rows of at most {length} tokens, as in {where}; --max-length says otherwise")
    return build_spec(given | {"max_length": length})


def _known_length(teacher: str, rows: Rows, out: Path | None) -> tuple[int | None, str]:
    """Tokens of a row at most, and where that is from; None where it is not known."""
    if out is not None and (begun := Ledger(out).request()) is not None:
        return begun.spec.max_length, f"the cache {out}"
    memory, task = of_model(teacher), rows.layout.task
    if memory.max_length is None and task is not None:
        return task.max_length, f"the task {task.name}"
    return memory.max_length, memory.where


def make_job(teacher: str, device: str, spec: Spec, rows: Rows, keep: str = "--max-length") -> "Job":
    """Load the teacher, read and tokenize the rows of a task, and lay out the cache.

    Columns that neither the command line nor a cache tells are those that the teacher was trained on.

    Args:
        teacher: folder or hub id.
        device: where it computes.
        spec: what to keep.
        rows: the data.
        keep: what to do in order to cut no row, see :class:`~hskcache.text.cut.Reach`.

    Raises:
        CacheError: whichever of them is at fault.
    """
    require_teacher_extra()
    from hskcache.build.job import prepare_job
    from hskcache.resolved import resolve_spec
    from hskcache.teacher.load import load_teacher

    assert rows.source is not None
    layout = rows.layout
    if layout.memory is None:
        layout = layout.recalling(of_model(teacher), rows.source)
    layout.check(rows.source)
    loaded = load_teacher(teacher, device, spec.compute_dtype)
    # What is wrong with the spec is said before the rows are read, which may take minutes.
    spec = resolve_spec(spec, loaded.info)
    examples = layout.read_for(loaded.info.name, loaded.model.config, rows.source)
    tokens = tokenized(examples, loaded.tokenizer, spec.max_length)
    tell_cut(tokens.cut, len(tokens), rows.source, reach_of(loaded.model, teacher, spec.max_length, keep))
    return prepare_job(loaded, examples, tokens, spec)


def make_corpus_build(teacher: str, device: str, spec: Spec, corpus: Path, out: Path | None = None) -> "CorpusBuild":
    """Load an encoder without its task head, to run over a corpus.

    Where neither flags nor ``--spec`` say how the corpus is packed, it is as in the cache that is there already, or as
    the teacher was pre-trained: pairs, if it tells two texts apart.

    Args:
        teacher: folder or hub id.
        device: where to compute.
        spec: what to keep, see build_spec.
        corpus: the text.
        out: the cache, finished or not.

    Raises:
        CacheError: it cannot be loaded.
    """
    found = None if out is None else Ledger(out).request()
    build = make_corpus_part(teacher, device, spec, corpus)
    said = spec.packing.model_dump(exclude_unset=True)
    if found is not None and found.data.problem == "text" and "pairs" not in said:
        defaults = found.spec.packing.model_dump()
    else:
        is_pairs = said["pairs"] != "none" if "pairs" in said else build.has_token_types
        defaults = PAIR_DEFAULTS if is_pairs else {}
    return replace(build, spec=spec.model_copy(update={"packing": Packing.model_validate(defaults | said)}))


def make_corpus_part(teacher: str, device: str, spec: Spec, corpus: Path) -> "CorpusBuild":
    """Load an encoder without its task head, to run over a corpus that is packed as the spec says.

    Raises:
        CacheError: it cannot be loaded.
    """
    require_teacher_extra()
    check_corpus(corpus)
    from hskcache.build.corpus import CorpusBuild
    from hskcache.teacher.load import load_encoder

    return CorpusBuild(load_encoder(teacher, device, spec.compute_dtype), corpus, spec)


def packed(build: "CorpusBuild", spool: Path) -> "Job":
    """Tokenize and pack a corpus, with a progress bar over its bytes."""
    with console.progress("bytes") as bar:
        task = bar.add_task("tokenize", total=build.path.stat().st_size if build.path.is_file() else None)
        return build.job(spool, lambda count: bar.advance(task, count))


def make_addition(
    teacher: str, out: Path, field: tuple[str, str | None], rows: Rows, given: dict[str, Any]
) -> "Addition":
    """Open a cache and load the teacher of a field that is to be added to it.

    Args:
        teacher: folder or hub id.
        out: the cache.
        field: its kind and its name.
        rows: as given; there must be none, as the cache holds them.
        given: what to keep, the device.

    Raises:
        CacheError: whichever of them is at fault.
    """
    kind, name = field
    if name is None:
        raise SpecError(f"--add-field {kind} needs a name for the field: give --name, such as --name s30")
    if rows.source is not None or rows.corpus is not None or not rows.layout.is_empty:
        raise SpecError(
            f"--add-field takes its rows from the cache {out}; leave out --data, --corpus, --task and columns"
        )
    for flag in ("max_length", "shard_rows"):
        if given[flag] is not None:
            raise SpecError(f"--{flag.replace('_', '-')} is the cache's own; leave it out with --add-field")
    refuse_packing(given)
    require_teacher_extra()
    from hskcache.build.addition import prepare_addition
    from hskcache.cache import open_cache
    from hskcache.teacher.load import load_encoder, load_teacher

    cache = open_cache(out)
    spec = build_spec(given, _base(kind))
    load = load_encoder if cache.manifest.request.data.problem == "text" else load_teacher
    return prepare_addition(load(teacher, given["device"], spec.compute_dtype), cache, kind, name, spec)


def check_room(out: Path) -> None:
    """Refuse a place where no build can begin, before a teacher is loaded.

    Raises:
        CacheError: it holds something that is no cache, or nothing can be written there.
    """
    ledger = Ledger(out)
    if ledger.request() is None:
        ledger.require_room()
        require_writable(out)


def _base(kind: str) -> Spec:
    """What an added field keeps where the flags do not say: what a build would, of its kind alone.

    Nothing is taken from how the cache was built: its layers and heads are those of another teacher.
    """
    return Spec.model_validate({name: section() if name == kind else None for name, section in SECTIONS.items()})


def require_teacher_extra() -> None:
    """Say which extra is missing before a long traceback does.

    Raises:
        CacheError: torch or transformers is not installed.
    """
    from importlib.util import find_spec

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise CacheError(f"{package} is not installed; install the extra: pip install 'hskcache[teacher]'")
