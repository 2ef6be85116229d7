"""Caches to audit, what an audit says of them, and other content under digests that fit it."""

from collections.abc import Callable
from typing import Any

import pytest

from hskcache.audit.audit import Question, audit, prepare_audit
from hskcache.audit.findings import AuditReport, Layer
from hskcache.build.build import build
from hskcache.build.job import Job, prepare_job
from hskcache.cache import Cache, open_cache
from hskcache.spec import Attention, Depth, Length
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, tokenize
from hskcache.verify import verify

FEW = Question(num_rows=13)


def report_of(teacher: Teacher, cache: Cache, question: Question = FEW) -> AuditReport:
    return audit(prepare_audit(teacher, cache, question))


def layer_of(report: AuditReport, field: str, layer: int | None = None) -> Layer:
    (found,) = (one for one in report.layers if (one.field, one.layer) == (field, layer))
    return found


def building(job_of: Any, examples: Examples, folders: pytest.TempPathFactory) -> Callable[..., Cache]:
    """The cache of a short form, ten shards of four rows, with attention where it is asked for."""

    def make_cache(keep: str, attention: dict[str, Any] | None = None, **given: Any) -> Cache:
        job: Job = job_of(keep, **given)
        if attention is not None:
            heads = attention.pop("heads", "all")
            kept = Attention(
                depth=Depth(student_layers=2),
                length=Length(**attention),
                heads=heads,
                encoding=given.get("encoding", "float32"),
            )
            spec = job.spec.model_copy(update={"attention": kept})
            job = prepare_job(job.teacher, examples, tokenize(examples, job.teacher.tokenizer, spec.max_length), spec)
        out = folders.mktemp("audit") / "c"
        build(job, out)
        return open_cache(out)

    return make_cache


def changed(cache: Cache, field: str, shard: int, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Cache:
    """A cache with other arrays in one shard and digests that fit them."""
    arrays = cache.read(field, shard)
    arrays = change(arrays) or arrays
    ledger = Ledger(cache.root)
    ledger.commit(field, shard, cache.shards[shard], arrays)
    ledger.finish(cache.manifest.request, cache.manifest.own_fields, {})
    assert verify(cache.root).ok
    return open_cache(cache.root)
