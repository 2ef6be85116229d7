"""Scores of the teacher on rows that the cache does not hold, taken while it is in memory.

A student that is scored on the same rows later is read beside them. What ``hsktrain finetune`` has measured of this
very teacher is taken from its folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hskcache import console
from hskcache.build.job import Job
from hskcache.build.site import Site
from hskcache.cut import tell_cut
from hskcache.evaluation import check_labels, evaluate
from hskcache.inference import check_fit
from hskcache.metrics import PROBLEM_METRICS, metrics_for
from hskcache.recall import of_cache
from hskcache.store.evaluation import Evaluation
from hskcache.store.manifest import Manifest
from hskcache.text import Examples, TokenizedRows, tokenized
from hskcache.text.layout import Layout
from hskcache.text.memory import InMemory
from hskcache.text.tokenize import reach_of

_MEASURED = "metrics.json"
"""File beside a teacher's weights, if it was made here."""


class EvaluationRows(NamedTuple):
    """Labelled rows to score a teacher on, and their tokens."""

    examples: Examples
    rows: TokenizedRows


def evaluation_rows(job: Job, sources: Sequence[str | InMemory], layout: Layout, site: Site) -> list[EvaluationRows]:
    """Labelled rows of files, read as ``hsktrain fit --eval-data`` will read them from the cache of a job.

    Raises:
        DataError: they cannot be read, or have no labels.
        MismatchError: they have other classes, or are longer than the teacher reads.
    """
    read = []
    for source in sources:
        columns = layout.recalling(of_cache(site.name, job.request), source, labelled=True)
        names = job.data.label_names or [str(label) for label in range(job.teacher.num_labels or 1)]
        is_score = job.data.problem == "regression"
        examples = columns.of_labelled_rows().read(source, [] if is_score else names, job.data.problem)
        check_labels(examples)
        rows = tokenized(examples, job.teacher.tokenizer, job.spec.max_length)
        if job.windowing is None:
            check_fit(job.teacher.model, rows)
        tell_cut(
            rows.cut, len(rows), str(source), reach_of(job.teacher.model, job.teacher.info.name, job.spec.max_length)
        )
        read.append(EvaluationRows(examples, rows))
    return read


def scored(job: Job, site: Site, wanted: Sequence[EvaluationRows]) -> Manifest:
    """The manifest of the complete cache of a job with its teacher's scores on some rows, and those known of it.

    Raises:
        MismatchError: the cache is of an older version of the format.
    """
    length = job.spec.max_length
    standing = site.intact().evaluations
    found = _measured(job)
    for examples, rows in wanted:
        if any(one.is_of(examples.fingerprint, length) for one in [*standing, *found]):
            continue
        console.say(f"scoring the teacher on {examples.source}")
        # All that fits the task, as whoever scores a student may choose among them.
        metrics = metrics_for(examples.problem, PROBLEM_METRICS[examples.problem])
        values = evaluate(job.teacher.model, examples, rows, metrics, windowing=job.windowing)
        found.append(
            Evaluation(
                data=examples.source,
                fingerprint=examples.fingerprint,
                num_rows=len(examples),
                max_length=length,
                metrics=dict(values),
            )
        )

    def change(manifest: Manifest) -> Manifest:
        known = {(one.fingerprint, one.max_length) for one in manifest.evaluations}
        new = [one for one in found if (one.fingerprint, one.max_length) not in known]
        return manifest.model_copy(update={"evaluations": [*manifest.evaluations, *new]})

    if all(one in standing for one in found):
        return site.intact()
    return site.grow(change)


def _measured(job: Job) -> list[Evaluation]:
    """Scores in the folder of a teacher, where they are of its weights as they are; what cannot be read is none."""
    try:
        known = json.loads((Path(job.teacher.info.name) / _MEASURED).read_text(encoding="utf-8"))
        is_its = known["weights_sha256"] == job.teacher.info.weights_sha256
        return [Evaluation.model_validate(known["evaluation"])] if is_its else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
