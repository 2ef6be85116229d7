"""Add a field to a finished cache: another run, of this teacher or another, over the rows that the cache holds.

No data set is read: the tokens are those of the cache, so every row is the same row by construction.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from hskcache import console
from hskcache.build.agreement import added_agreement
from hskcache.build.batching import NEWEST, way_of
from hskcache.build.folder import SINCE, FolderSite
from hskcache.build.job import Job, request_of
from hskcache.build.kinds import BUILT
from hskcache.build.layout import plan
from hskcache.build.nonfinite import OnNonfinite
from hskcache.build.resolving import resolve_for, tell_surprises
from hskcache.build.rounds import Progress
from hskcache.build.windows import check_singles, told_windows
from hskcache.build.writing import Writing, environment_of, require_rows
from hskcache.cache import Cache
from hskcache.disk import writing_to
from hskcache.encoder import takes_token_types
from hskcache.errors import MismatchError, SpecError
from hskcache.recall import of_cache
from hskcache.rows import join
from hskcache.spec import SECTIONS, Packing, Spec
from hskcache.store.additions import (
    FieldDraft,
    adding,
    begin_field,
    check_name,
    finish_field,
    is_added,
    standing_field,
)
from hskcache.store.kinds import INPUTS, KINDS, kind_of
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Added, Manifest, Request
from hskcache.store.survey import survey
from hskcache.teacher.inputs import fit_rows
from hskcache.teacher.load import Teacher
from hskcache.text import TokenizedRows, load_tokenizer
from hskcache.text.first_pieces import stored_pieces
from hskcache.text.tokenize import special_ids, vocabulary_difference


@dataclass(frozen=True, eq=False)
class Addition:
    """A field to be added; made by :func:`prepare_addition`.

    Attributes:
        job: the teacher over the cache's rows.
        cache: that the field is added to.
        kind: of the field.
        name: that it will have.
    """

    job: Job
    cache: Cache
    kind: str
    name: str

    @cached_property
    def pieces(self) -> list[tuple[Job, tuple[int, int]]]:
        """Jobs over the parts of the rows, as each has shards of its own, with the first shard and row of each."""
        request, job = self.cache.manifest.request, self.job
        if not request.appended:
            return [(job, (0, 0))]
        pieces, shard, row = [], 0, 0
        for part in request.parts:
            rows = _between(job.rows, row, row + part.num_rows)
            layout = plan(job.spec, job.teacher.info, job.teacher.num_labels, rows)
            pieces.append((replace(job, rows=rows, layout=layout), (shard, row)))
            shard, row = shard + request.shards_of(part), row + part.num_rows
        return pieces

    @cached_property
    def draft(self) -> FieldDraft:
        """The field and where it comes from."""
        tokenizer = self.cache.manifest.request.tokenizer
        asked = request_of(
            self.job.teacher,
            (self.job.spec, self.job.layout.shard_rows),
            self.job.data,
            (tokenizer.sha256, tokenizer.has_token_types),
        )
        added = Added(
            teacher=asked.teacher,
            spec=asked.spec,
            layers=asked.layers,
            attention_layers=asked.attention_layers,
            environment=environment_of(self.job),
        )
        return FieldDraft(field=self.job.fields[self.kind], added=added)


def prepare_addition(teacher: Teacher, cache: Cache, kind: str, name: str, spec: Spec | None = None) -> Addition:
    """Prepare a teacher's run over the rows of a cache, after checking that its field can stand beside the others.

    Args:
        teacher: with a classifier for the cache of a task, without one for that of a corpus.
        cache: a complete one.
        kind: ``logits``, ``hidden`` or ``attention``.
        name: of the field, which is also its folder.
        spec: what to keep; None of logits. The cache's own ``max_length`` and rows of a shard hold whatever it says.

    Raises:
        SpecError: the name or what is to be kept cannot be.
        MismatchError: the teacher knows other tokens or other classes than the cache.
        TeacherError: it cannot read the rows.
    """
    request = cache.manifest.request
    check_name(cache.manifest, name)
    BUILT[kind].check_addition(teacher, request, str(cache.root))
    tokenizer = load_tokenizer(cache.tokenizer_path)
    _check_tokenizer(teacher, cache, tokenizer)
    BUILT[kind].check_classes(teacher, request)
    if spec is None:
        # Grouped as the cache's own rows, the same teacher gives the same bits.
        dtype = str(teacher.model.dtype).removeprefix("torch.")
        spec = Spec.model_validate(
            {**dict.fromkeys(SECTIONS), "token_budget": request.spec.token_budget, "compute_dtype": dtype}
        )
    spec = resolve_for(teacher, _spec(request, kind, spec))
    _check_prompt(spec, request.spec)
    are_pairs = of_cache(str(cache.root), request).is_pairs is True
    check_singles(spec, are_pairs)
    tell_surprises(teacher, spec)
    rows = rows_of(cache, special_ids(tokenizer))
    if "token_type_ids" not in teacher.tokenizer.model_input_names:
        # As in a build with this teacher: its model may have such an input, but was never shown one.
        rows = replace(rows, token_type_ids=None)
    names, further = (teacher.info.name, request.data.name), told_windows(teacher, not are_pairs and rows.words is None)
    rows = fit_rows(teacher.model, rows, names, spec.windows is not None, further)
    job = Job(teacher, request.data, None, rows, spec, plan(spec, teacher.info, teacher.num_labels, rows))
    return Addition(job, cache, kind, name)


def added(addition: Addition) -> Manifest | None:
    """The manifest of the cache if the field is in it with all its files, else None.

    Raises:
        MismatchError: another field stands under the name, or is being added there.
    """
    ledger = Ledger(addition.cache.root)
    manifest = is_added(ledger, addition.name, addition.draft)
    # A process that is at it, or died after the manifest, has left this; the last one to leave removes it.
    return None if survey(ledger.root).is_claimed(addition.name) else manifest


def add_field(addition: Addition, on_rows: Progress | None = None, on_nonfinite: OnNonfinite = "fail") -> Manifest:
    """Run the teacher and add the field, or finish one that was cut off, or help others that add the same.

    One that is there is left as it is. Meanwhile the cache is what it was: it can be read, and other fields can be
    added to it.

    Args:
        addition: what to add.
        on_rows: called with the number of rows of each piece of work that is done, by whichever process, resumed rows
            included.
        on_nonfinite: whether a row with values that are not finite ends the work or is left out.

    Raises:
        MismatchError: another field stands under the name, or is being added there.
        TeacherError: the teacher gives values that are not finite, or its device has too little memory.
        CacheError: the disk is too small or cannot be written.
    """
    done = added(addition)
    if done is not None:
        return done
    ledger = Ledger(addition.cache.root)
    name, draft = addition.name, addition.draft
    with writing_to(ledger.root / name, SINCE), adding(ledger, name) as claims:
        with claims.alone():
            if (done := is_added(ledger, name, draft)) is not None:
                return done
            draft, writings = _as_begun(addition, on_nonfinite)
            FolderSite(ledger.root).require_space(sum(writing.most_bytes for writing in writings))
            begin_field(ledger, name, draft)
        for writing in writings:
            writing.write(on_rows, claims)
        with claims.alone(idle=True):
            require_rows(writings)
            if (done := is_added(ledger, name, draft)) is not None:
                return done
            field = draft.field
            agreement = added_agreement(addition.cache, name, field) if kind_of(field).num_answers(field) else None
            return finish_field(ledger, name, draft, agreement)


def _as_begun(addition: Addition, on_nonfinite: OnNonfinite) -> tuple[FieldDraft, list[Writing]]:
    """The field and what writes it, batched as an older version may have begun to."""
    ledger, name, draft = Ledger(addition.cache.root), addition.name, addition.draft
    names: dict[str, str] = {addition.kind: name}
    origin, begun = addition.cache.manifest.first_row, standing_field(ledger, ledger.intact(), name)
    way = NEWEST if begun is None else way_of(begun.added.environment, str(ledger.root / name))
    if way is not NEWEST:
        added = draft.added.model_copy(update={"environment": environment_of(addition.job, way)})
        draft = draft.model_copy(update={"added": added})
    return draft, [Writing(job, ledger, names, first, on_nonfinite, origin, way) for job, first in addition.pieces]


def rows_of(cache: Cache, special: frozenset[int]) -> TokenizedRows:
    """The rows of a cache as they were tokenized, in memory: about 8 bytes a token while they are read.

    Args:
        cache: whose inputs are read, verified.
        special: ids of the tokens that mark structure.
    """
    names = {"input_ids", "row_offsets"}
    if cache.manifest.request.tokenizer.has_token_types:
        names.add("token_type_ids")
    stored = cache.manifest.fields[INPUTS]
    names |= {"positions", "position_offsets", "targets"} & kind_of(stored).arrays(stored).keys()
    shards = [cache.read(INPUTS, shard, names) for shard in range(len(cache.shards))]
    lengths = np.concatenate([np.diff(arrays["row_offsets"]) for arrays in shards])
    types = [arrays["token_type_ids"] for arrays in shards if "token_type_ids" in arrays]
    targets = [arrays["targets"].astype(np.bool_) for arrays in shards if "targets" in arrays]
    return TokenizedRows(
        input_ids=np.concatenate([arrays["input_ids"] for arrays in shards]).astype(np.int32),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
        token_type_ids=np.concatenate(types) if types else None,
        special_ids=special,
        targets=np.concatenate(targets) if targets else None,
        words=stored_pieces(join([{key: one[key] for key in one if key.startswith("position")} for one in shards])),
    )


def _between(rows: TokenizedRows, start: int, stop: int) -> TokenizedRows:
    """Neighbouring rows, [start, stop)."""
    first, last = rows.offsets[start], rows.offsets[stop]
    types = rows.token_type_ids
    return replace(
        rows,
        input_ids=rows.input_ids[first:last],
        offsets=rows.offsets[start : stop + 1] - first,
        token_type_ids=None if types is None else types[first:last],
        targets=None if rows.targets is None else rows.targets[first:last],
        words=None if rows.words is None else rows.words.between(start, stop),
    )


def _spec(request: Request, kind: str, spec: Spec) -> Spec:
    """Spec that keeps the kind, and no other, with rows and shards as they stand."""
    called = {name: one.words for name, one in KINDS.items()}
    for other in SECTIONS:
        if (spec.sections[other] is not None) != (kind == other):
            keeps = "none are kept" if kind == other else f"{called[other]} are to be kept too"
            raise SpecError(
                f"a field of {called[kind]} is to be added, but {keeps}; keep {called[kind]} and nothing else"
            )
    rows = {"max_length": request.spec.max_length, "shard_rows": request.shard_rows, "packing": Packing()}
    return spec.model_copy(update=rows)


def _check_prompt(spec: Spec, of_cache: Spec) -> None:
    """Raise SpecError if a prompt is to stand before rows that were tokenized with another, or without."""
    theirs = "" if of_cache.embedding is None else of_cache.embedding.prompt
    if spec.embedding is not None and spec.embedding.prompt != theirs:
        raise SpecError(
            f"the prompt {spec.embedding.prompt!r} is asked for, and the rows of the cache are tokenized with "
            f"{theirs!r} before them; give --prompt {theirs!r}"
        )


def _check_tokenizer(teacher: Teacher, cache: Cache, tokenizer: PreTrainedTokenizerBase) -> None:
    found = vocabulary_difference(teacher.tokenizer.get_vocab(), tokenizer.get_vocab())
    if found is not None:
        token, theirs, ours = found
        raise MismatchError(
            f"the tokenizer of {teacher.info.name} is not that of {cache.root}: token {token!r} has id {theirs} there "
            f"and {ours} here; give a teacher with the same vocabulary, or build a cache of its own"
        )
    reads_types = takes_token_types(teacher.model) and "token_type_ids" in teacher.tokenizer.model_input_names
    if reads_types and not cache.manifest.request.tokenizer.has_token_types:
        raise MismatchError(
            f"{teacher.info.name} tells the two texts of a pair apart by token types, which the rows of {cache.root} "
            "were stored without; build a cache with it first and add the other teacher's field to that"
        )
    _check_rules(teacher, tokenizer)


def _check_rules(teacher: Teacher, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say it where the teacher's tokenizer has the same pieces but would cut text into them by other rules."""
    theirs, ours = (json.loads(one.backend_tokenizer.to_str()) for one in (teacher.tokenizer, tokenizer))
    rules = ("normalizer", "pre_tokenizer", "post_processor")
    if other := [rule for rule in rules if theirs[rule] != ours[rule]]:
        console.say(
            f"the tokenizer of {teacher.info.name} has another {' and '.join(other)} than that of the cache; it reads "
            "the cache's tokens, not those it would make itself"
        )
