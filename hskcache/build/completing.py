"""A build in a depot completed without a teacher, from what its workers have written there. Needs no torch."""

from hskcache.build.agreement import stored_agreement
from hskcache.depot.stores import open_stores
from hskcache.errors import CacheError
from hskcache.remote.place import folder_of
from hskcache.store.agreement import Agreement
from hskcache.store.depots import finishing
from hskcache.store.depots.begun import DepotDraft
from hskcache.store.depots.ledger import DepotLedger
from hskcache.store.fields import INPUTS, LOGITS
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest


def complete(place: str) -> Manifest:
    """Put the manifest of a cache whose shards are all committed, and sweep what its workers have left.

    Of a cache that is complete the rest is swept, such as what a worker left that woke up after all others were done.
    In a folder the last process to leave a build does all that, and the cache is complete or is to be built on.

    Args:
        place: the URL of a bucket, or a folder.

    Raises:
        CacheError: nothing is being built there.
        MismatchError: a shard is not committed.
        DamageError: what stands there is damaged.
    """
    if (root := folder_of(place)) is not None:
        return Ledger(root).intact()
    ledger = DepotLedger(open_stores(place))
    standing = ledger.manifest()
    if standing is not None:
        finishing.sweep(ledger, standing)
        return standing
    draft = ledger.draft()
    if draft is None:
        raise CacheError(f"{ledger.name} holds no build; give the URL that hskcache build wrote to with --out")
    # What is missing is told before shards are read.
    finishing.require_committed(ledger, draft.request)
    return finishing.finish(ledger, draft.request, draft.stored, draft.environment, _agreement(ledger, draft))


def _agreement(ledger: DepotLedger, draft: DepotDraft) -> dict[str, Agreement]:
    if LOGITS not in draft.stored:
        return {}
    found = stored_agreement(ledger, draft.request, draft.stored[INPUTS], (LOGITS, draft.stored[LOGITS]))
    return {} if found is None else {LOGITS: found}
