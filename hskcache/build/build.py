"""Build a cache: one run of the teacher over tokenized rows, committed shard by shard, resumable at any moment.

Several processes may build one cache together: each calls :func:`build` with the same job. They need no connection,
only the folder; however many there are, and whichever of them die, the bytes are the same.
"""

from dataclasses import replace
from pathlib import Path

from hskcache.build.agreement import agreement_of
from hskcache.build.batching import way_of
from hskcache.build.constants import extractor_for
from hskcache.build.folder import FolderSite
from hskcache.build.job import Job, describe_job, prepare_job
from hskcache.build.nonfinite import OnNonfinite
from hskcache.build.request import WorkerPart
from hskcache.build.rounds import Progress
from hskcache.build.site import Site
from hskcache.build.writing import Writing, require_rows
from hskcache.store.manifest import Manifest

__all__ = ["Job", "build", "build_part", "describe_job", "extractor_for", "finished", "prepare_job"]


def build(job: Job, out: Path, on_rows: Progress | None = None, on_nonfinite: OnNonfinite = "fail") -> Manifest:
    """Write the cache into a folder, or finish one that was cut off, as :func:`build_part` does with all of it."""
    manifest = build_part(job, FolderSite(out), on_rows, on_nonfinite)
    assert manifest is not None
    return manifest


def build_part(
    job: Job,
    site: Site,
    on_rows: Progress | None = None,
    on_nonfinite: OnNonfinite = "fail",
    part: WorkerPart | None = None,
) -> Manifest | None:
    """Write the cache, or finish one that was cut off, or help others that are at it; a complete one is left as it is.

    Args:
        job: what to build.
        site: where.
        on_rows: called with the number of rows of each piece of work that is done, by whichever process, resumed rows
            included.
        on_nonfinite: whether a row with values that are not finite ends the build or is left out.
        part: of the shards to write; None writes all, or sees to it that others do.

    Returns:
        The manifest of the complete cache; None where the part is written and others are not.

    Raises:
        MismatchError: the site holds something else.
        TeacherError: the teacher gives values that are not finite, or its device has too little memory.
        CacheError: the disk is too small, or the site cannot be written.
    """
    if (done := finished(job, site)) is not None:
        return done
    fields = job.fields
    writing = Writing(job, site.ledger, {name: name for name in fields}, on_nonfinite=on_nonfinite, part=part)
    with site.reaching():
        site.require_same(job.request)
        site.require_space(writing.most_bytes)
        with site.sharing() as claims:
            with claims.alone():
                if (done := _written(job, site)) is not None:
                    return done
                site.begin(job.request, fields, writing.environment, job.tokenizer.files)
                # A build that was begun by an older version, and shards that were lost, are batched as they were.
                writing = replace(writing, way=way_of(site.environment, site.name))
            writing.write(on_rows, claims)
            site.look_again()
            if part is not None and writing.num_missing:
                return None
            # Until nobody writes any more: what is left half written then was left by a process that died.
            with claims.alone(idle=True):
                require_rows([writing])
                if (done := _written(job, site)) is not None:
                    return done
                return site.finish(job.request, fields, writing.environment, agreement_of(job, site.ledger))


def finished(job: Job, site: Site | Path) -> Manifest | None:
    """The manifest of the cache that a build would write, if it stands there with all its files, else None.

    The size of every shard is looked at, not its content; ``hskcache verify`` does that.

    Args:
        job: what to build.
        site: where; a folder, too.

    Raises:
        DamageError: the manifest cannot be read.
    """
    site = FolderSite(site) if isinstance(site, Path) else site
    # A process that is at it, or died after the manifest, has left this; the last one to leave removes it.
    return None if site.is_claimed() else _written(job, site)


def _written(job: Job, site: Site) -> Manifest | None:
    """The manifest that stands at a site if it is that of the job and nothing is left to do."""
    manifest = site.written(job.tokenizer.sha256)
    return manifest if manifest is not None and manifest.request_digest == job.request.digest else None
