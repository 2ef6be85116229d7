"""Append rows to a finished cache: the same teacher over more data, as shards after those that are there."""

from hskcache.build.agreement import agreement_of
from hskcache.build.batching import way_of
from hskcache.build.folder import SINCE, FolderSite
from hskcache.build.job import Job, check_same
from hskcache.build.nonfinite import OnNonfinite
from hskcache.build.rounds import Progress
from hskcache.build.writing import Writing
from hskcache.cache import Cache
from hskcache.disk import writing_to
from hskcache.errors import MismatchError
from hskcache.store.appending import (
    RowsDraft,
    appending,
    begin_append,
    check_may_append,
    finish_append,
    is_appended,
    is_left,
    tidy_append,
)
from hskcache.store.fields import INPUTS, StoredField
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import InputsField, Manifest


def check_append(job: Job, cache: Cache, again: bool = False) -> None:
    """Raise unless the rows of a job may stand after those of a cache.

    Args:
        job: the cache's teacher over the new rows, with the cache's spec and rows of a shard.
        cache: a complete one.
        again: whether rows may be appended that are there already.

    Raises:
        MismatchError: they may not; tells the first difference.
    """
    manifest = cache.manifest
    request, data = manifest.request, job.data
    check_may_append(Ledger(cache.root), manifest, data)
    check_same(job, request, data, cache.root)
    for key, here, there in (
        ("problem", request.data.problem, data.problem),
        ("classes", ", ".join(request.data.label_names), ", ".join(data.label_names)),
    ):
        if here != there:
            raise MismatchError(
                f"the rows of {cache.root} have the {key} {here:.80} and those of {data.name} have {there:.80}; append "
                "rows of the same task"
            )
    fields = job.fields
    inputs, known = job.inputs, manifest.own_fields.get(INPUTS)
    if isinstance(known, InputsField) and inputs.has_unlabelled and not known.has_unlabelled:
        raise MismatchError(
            f"some rows of {data.name} have no gold label, and all of {cache.root} have one; leave such rows out with "
            "--unlabelled skip"
        )
    if isinstance(known, InputsField):
        # Where rows without a label may stand, all may have one.
        fields[INPUTS] = inputs.model_copy(update={"has_unlabelled": known.has_unlabelled})
    if manifest.own_fields != fields:
        name = next(
            name for name in {**manifest.own_fields, **fields} if manifest.own_fields.get(name) != fields.get(name)
        )
        what = _unlike(job, known) if name == INPUTS else f"make another field {name}"
        raise MismatchError(
            f"the rows of {data.name} {what}, unlike those of {cache.root}; name the columns that it was built with"
        )
    ledger = Ledger(cache.root)
    is_known = data.fingerprint in {part.fingerprint for part in request.parts}
    if is_known and not again and not is_appended(ledger, manifest, data, is_left(ledger)):
        raise MismatchError(
            f"{cache.root} has the rows of {data.name} already; give other data, or --again to have them in it twice"
        )


def _unlike(job: Job, known: StoredField | None) -> str:
    """Difference of the rows of a job from those of a cache, beside their tokens, in words."""
    if isinstance(known, InputsField) and known.has_copies and job.copies is None:
        return "lack the numbers of copies that --copy names"
    return f"{'lack' if job.labels is None else 'have'} labels"


def append(
    job: Job,
    cache: Cache,
    on_rows: Progress | None = None,
    again: bool = False,
    on_nonfinite: OnNonfinite = "fail",
) -> Manifest:
    """Run the teacher over new rows and append them, or finish what was cut off.

    Meanwhile the cache is what it was. What was there stays as it is, to the byte.

    Args:
        job: as for :func:`check_append`.
        cache: that the rows are appended to.
        on_rows: called with the number of rows of each piece of work that is done, resumed rows included.
        again: whether rows may be appended that are there already.
        on_nonfinite: whether a row of which the teacher gives NaN or infinity ends the run or is left out.

    Raises:
        MismatchError: the rows may not stand there.
        TeacherError: the teacher gives values that are not finite, or its device has too little memory.
        CacheError: another process is appending, or the disk is too small or cannot be written.
    """
    ledger = Ledger(cache.root)
    with writing_to(cache.root, SINCE), appending(ledger) as left:
        manifest = ledger.intact()
        is_done = is_appended(ledger, manifest, job.data, left and not again)
        check_append(job, Cache(manifest, cache.shelf), again or is_done)
        if is_done:
            tidy_append(ledger, manifest)
            return manifest
        first = (manifest.request.num_shards, manifest.request.num_rows)
        names = {name: name for name in manifest.own_fields}
        way = way_of(manifest.environment, str(cache.root))
        writing = Writing(job, ledger, names, first, on_nonfinite, way=way)
        begin_append(ledger, manifest, job.data)
        FolderSite(cache.root).require_space(writing.most_bytes)
        writing.write(on_rows)
        draft = RowsDraft(data=job.data, start=first[1])
        # Only what is known of the rows before can be told of all of them.
        agreement = agreement_of(job, ledger, first) if manifest.agreement else {}
        return finish_append(ledger, draft, writing.environment, agreement)
