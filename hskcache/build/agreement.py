"""The stored logits of a teacher beside the labels of its rows, read back once all is written.

Whoever wrote which shard, and however often a build was cut off, what is counted is what stands in the cache.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache.agreement import class_agreement, flags_agreement, score_agreement
from hskcache.cache import Cache
from hskcache.classes import has_gold, of_words, single_classes
from hskcache.errors import DamageError
from hskcache.rows import join
from hskcache.store.agreement import Agreement
from hskcache.store.commits import Committing, records_of
from hskcache.store.fields import INPUTS, LOGITS, InputsField, LogitsField, StoredField
from hskcache.store.ledger import Ledger
from hskcache.store.record import Record
from hskcache.store.request import DataInfo, Request
from hskcache.text.labels import Labels
from hskcache.text.tagged import rows_of

if TYPE_CHECKING:
    from hskcache.build.job import Job


def agreement_of(job: "Job", ledger: Committing, first: tuple[int, int] = (0, 0)) -> dict[str, Agreement]:
    """The agreement of a job's logits with its labels, by field; empty where it has none of either.

    Args:
        job: whose fields are all written under their own names.
        ledger: the shards of the cache.
        first: number of the first shard and first row of the cache that the job's rows became.
    """
    field = job.fields.get(LOGITS)
    if field is None or job.labels is None:
        return {}
    records = [ledger.committed(LOGITS, first[0] + shard) for shard in range(len(job.layout.shards))]
    written = [record for record in records if record is not None]
    is_original = np.ones(len(job.rows), bool) if job.copies is None else job.copies.numbers == 0
    labels = _Labels(_compared(job.labels, job.data), is_original, first[1])
    agreement = _compare(ledger, field, written, labels)
    return {} if agreement is None else {LOGITS: agreement}


def added_agreement(cache: Cache, name: str, field: StoredField) -> Agreement | None:
    """The agreement of added logits with the labels that a cache holds; None where it holds none.

    Args:
        cache: to which they are being added.
        name: of their field, whose shards are all written.
        field: that it is.
    """
    manifest = cache.manifest
    return stored_agreement(Ledger(cache.root), manifest.request, manifest.fields[INPUTS], (name, field))


def stored_agreement(
    ledger: Committing, request: Request, inputs: StoredField, logits: tuple[str, StoredField]
) -> Agreement | None:
    """The agreement of logits with the labels that stand beside them; None where there are none.

    Args:
        ledger: the shards of a cache.
        request: of it.
        inputs: its field of the rows.
        logits: name and field of the logits, whose shards are all written.
    """
    if not isinstance(inputs, InputsField) or not inputs.has_labels:
        return None
    name, field = logits
    shards = range(request.num_shards)
    names = {"tags", "position_offsets"} if inputs.has_words else {"labels"}
    names |= {"copies"} if inputs.has_copies else set()
    stored = join([ledger.read(record, inputs, names) for record in records_of(ledger, INPUTS, request)])
    labels = rows_of(stored["tags"], np.diff(stored["position_offsets"])) if inputs.has_words else stored["labels"]
    is_original = stored.get("copies", np.zeros(len(labels))) == 0
    records = [record for shard in shards if (record := ledger.committed(name, shard)) is not None]
    return _compare(ledger, field, records, _Labels(_compared(labels, request.data), is_original))


def _compared(labels: Labels | NDArray[np.generic], data: DataInfo) -> Labels | NDArray[np.generic]:
    """Labels as answers are compared with: of a distribution its most probable class."""
    return labels if data.problem == "multilabel" else single_classes(labels)


class _Labels(NamedTuple):
    """Labels of rows.

    Attributes:
        values: [N].
        is_original: flags of rows that are no copies [N].
        first_row: row of the cache that the first of them belongs to.
    """

    values: Labels | NDArray[np.generic]
    is_original: NDArray[np.bool_]
    first_row: int = 0


def _compare(ledger: Committing, field: StoredField, records: Iterable[Record], labels: _Labels) -> Agreement | None:
    """The agreement of shards of logits with the labels of originals: a copy has that of the row it was made from.

    A shard that cannot be read leaves it unknown: ``hskcache verify`` tells what is damaged, and a build is none the
    worse for it.
    """
    assert isinstance(field, LogitsField)
    width = field.num_labels
    answers, wanted = [], []
    for record in records:
        try:
            arrays = ledger.read(record, field)
        except (DamageError, OSError):
            return None
        is_kept = np.ones(record.num_rows, bool)
        is_kept[[one.row - record.start for one in record.skipped]] = False
        rows = slice(record.start - labels.first_row, record.stop - labels.first_row)
        is_kept &= labels.is_original[rows]
        logits_NC = arrays[field.array]
        logits_NC = logits_NC[np.repeat(is_kept, np.diff(arrays["position_offsets"])) if field.of_words else is_kept]
        answers.append(logits_NC)
        wanted.append(of_words(labels.values[rows][is_kept]))
    if not sum(map(len, answers)):
        return None
    answers_NC, wanted_N = np.concatenate(answers), np.concatenate(wanted)
    is_gold = has_gold(wanted_N)
    answers_NC, wanted_N = answers_NC[is_gold], wanted_N[is_gold]
    if wanted_N.ndim == 2:
        return flags_agreement(answers_NC, wanted_N)
    if width == 1:
        return score_agreement(answers_NC[:, 0], wanted_N)
    return class_agreement(answers_NC.argmax(1), wanted_N, width)
