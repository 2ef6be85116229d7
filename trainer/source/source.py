"""Sources of a run's batches: here a cache, in ``live`` a teacher in the loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hskcache.cache import Cache, open_cache
from hskcache.errors import SpecError
from hskcache.remote.mirror import LOCAL_BYTES, open_mirror
from hskcache.remote.place import is_url
from hskcache.store.kinds import INPUTS, KINDS, knowledge
from hskcache.views.retokenized import retokenized
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.loading.choice import Choice, identity_of, parse_choice, resolved
from trainer.loading.kinds import LOADED
from trainer.loading.loader import check_pack, first_shards
from trainer.loading.ordered import Ordered
from trainer.loading.plan import Plan
from trainer.loading.residency import Residency, most_window_bytes
from trainer.recipe import Losses, Recipe
from trainer.source.knowledge import Knowledge, cached_knowledge


@dataclass(frozen=True)
class Slice:
    """The part of every global batch that one forward pass of one process sees.

    Attributes:
        batch_size: rows of it, at most.
        rank, world_size: this process and their number.
        accumulation: forward passes of one optimiser step.
        device: where it is to be.
        layers: by kind, the layers it must have, of a kind that is not there all; it may have more.
        num_tokens: token ids that the student knows, counted from 0; None: whatever comes.
    """

    batch_size: int
    rank: int
    world_size: int
    accumulation: int
    device: str
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    num_tokens: int | None = None


@dataclass(frozen=True)
class Source:
    """Knowledge to learn from, and the way to load it.

    ``loader``: makes the loader of a stage: for its losses, the slice of this process, and the seed of the order.
    ``tokenizer``: folder or name of the tokenizer that made the rows. ``identity``: digest of what the batches are made
    of. ``cache_id``: of the cache, whatever is seen of it. ``teacher``: the model in the loop; None of a cache.
    """

    knowledge: Knowledge
    loader: Callable[[Losses, Slice, int], Ordered[Any, Batch]]
    tokenizer: str
    identity: str
    cache_id: str | None = None
    teacher: PreTrainedModel | None = None


@dataclass(frozen=True)
class Local:
    """Space of this machine for caches at URLs.

    ``folder``: holds it; None: :func:`~hskcache.remote.mirror.local_folder`. ``most_bytes``: it may hold; None:
    ``LOCAL_BYTES``.
    """

    folder: Path | None = None
    most_bytes: int | None = None


def fields_of(losses: Losses) -> tuple[str, ...]:
    """The kinds of field that a stage learns from, beside the inputs; each is also the name of the own field."""
    return tuple(kind for kind in knowledge() if kind in losses.kinds)


def in_tokens_of(tokenizer: str, cache: Cache, recipe: Recipe) -> Cache:
    """A cache with the rows in the tokens of another tokenizer, from the texts that it keeps.

    Args:
        tokenizer: folder or hub id.
        cache: that a recipe learns from.
        recipe: of a student with this tokenizer.

    Raises:
        SpecError: the recipe learns from what the teacher said of its own tokens.
        MismatchError: the cache keeps no text.
        TeacherError: there is no such tokenizer.
    """
    manifest, shelf = retokenized(cache.manifest, cache.shelf, tokenizer)
    if manifest is cache.manifest:
        return cache
    lost = {field.kind for field in cache.fields.values()} - {field.kind for field in manifest.fields.values()}
    if of_tokens := [KINDS[kind].words for kind in recipe.kinds if kind in lost]:
        raise SpecError(
            f"recipe {recipe.name!r} learns from {of_tokens[0]}, which {cache.name} keeps of its teacher's tokens, and "
            f"those of {tokenizer} are others; learn from whole rows, as --recipe logits and embedding do, or leave "
            "out --tokenizer"
        )
    return Cache(manifest, shelf)


def cached_source(
    cache: Path | str | Cache,
    residency: Residency = "auto",
    num_rows: int | None = None,
    fields: Sequence[str] | Choice = (),
    local: Local = Local(),
    pack: int | None = None,
) -> Source:
    """A cache to learn from, or its first rows.

    Raises CacheError if there is none, it is not complete, has fewer rows or no such fields; or it cannot be fetched;
    SpecError if the machine is to keep less of it than training reads at once.

    Args:
        cache: its path or URL, or the open cache, which may be a view of one.
        residency: where its encoded rows live, see :class:`~trainer.loading.KnowledgeLoader`.
        num_rows: to learn from the first rows alone; None: from all.
        fields: what to learn from in place of the cache's own fields: a choice, or what ``--field`` says, such as
            ``s30=0.7``.
        local: what this machine keeps of a cache at a URL that is to be opened.
        pack: see :class:`~trainer.loading.KnowledgeLoader`.
    """
    opened = opened_cache(cache, local)
    if pack is not None:
        check_pack(pack, opened.manifest.request, opened.name)
    # Now, and not when a stage begins: nothing has been written yet.
    shards = first_shards(opened, num_rows)
    choice = fields if isinstance(fields, Choice) else parse_choice(opened, fields)
    chosen = resolved(opened, choice)
    names, plan = (INPUTS, *chosen.names), Plan(shards, batch_size=1)
    opened.shelf.require(lambda: most_window_bytes(opened, names, plan), "the shards that are read at once")

    def loader(losses: Losses, part: Slice, seed: int) -> KnowledgeLoader:
        kinds = fields_of(losses)
        return KnowledgeLoader(
            opened,
            residency=residency,
            fields=tuple(name for kind in kinds for name in chosen.of(kind)),
            weights={name: weight for kind in kinds if LOADED[kind].is_averaged for name, weight in chosen.share(kind)},
            layers=part.layers,
            num_rows=num_rows,
            batch_size=part.batch_size,
            seed=seed,
            device=part.device,
            rank=part.rank,
            world_size=part.world_size,
            accumulation=part.accumulation,
            num_tokens=part.num_tokens,
            pack=pack,
        )

    knowledge = cached_knowledge(opened, choice)
    return Source(knowledge, loader, str(opened.tokenizer_path), identity_of(opened, choice, num_rows))


def opened_cache(cache: Path | str | Cache, local: Local = Local()) -> Cache:
    """A cache at its path or URL, or one that is open.

    Raises CacheError if there is none, it is not complete or cannot be reached; SpecError if ``local`` is given for one
    on this machine.
    """
    if isinstance(cache, Cache) or not is_url(str(cache)):
        if local != Local():
            flag = "dir" if local.folder is not None else "bytes"
            raise SpecError(f"--local-{flag} is for a cache at a URL, and {cache} is on this machine; leave it out")
        return cache if isinstance(cache, Cache) else open_cache(cache)
    return open_mirror(str(cache), local.folder, local.most_bytes or LOCAL_BYTES)
