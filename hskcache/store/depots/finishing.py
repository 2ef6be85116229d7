"""The end of a build in a depot: pages, the copy of the manifest, the manifest, and then the sweep.

Several workers may do so at once. The copy is put if it is absent, so one of them decides; the others put that one's
manifest, and sweep as it does. Nothing is swept before the manifest stands, and nothing that it lists. Whoever is
killed on the way leaves what the next one goes on with.
"""

import re
from collections.abc import Callable, Mapping

from hskcache.depot.unconditional import PROBE
from hskcache.errors import DamageError, MismatchError
from hskcache.store.agreement import Agreement
from hskcache.store.commits import manifest_of, records_of
from hskcache.store.consistency import check, check_records
from hskcache.store.depots.begun import read_manifest
from hskcache.store.depots.claims import CLAIMS
from hskcache.store.depots.ledger import DepotLedger
from hskcache.store.fields import Field
from hskcache.store.files import sha256_hex
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest, Request
from hskcache.store.pages import INDEX
from hskcache.store.publishing import COPY, MANIFEST, is_swept
from hskcache.store.survey import BUILDING
from hskcache.store.tokenizer import TokenizerFile, digest_of

_PAGE = re.compile(r"[0-9]{6,12}-[0-9a-f]{16}\.jsonl")


def finish(
    ledger: DepotLedger,
    request: Request,
    fields: Mapping[str, Field],
    environment: Mapping[str, str],
    agreement: Mapping[str, Agreement] | None = None,
) -> Manifest:
    """Put the manifest, which completes the cache, and remove what the build left behind.

    Args:
        ledger: the cache.
        request: of it.
        fields: that it asks for.
        environment: what computed them.
        agreement: of logits with the labels, by field.

    Returns:
        The manifest that stands, which another worker may have put.

    Raises:
        MismatchError: a shard is not committed.
        DamageError: a shard does not hold what its field stores, or the tokenizer is another than the request's.
    """
    standing = ledger.manifest()
    if standing is None:
        manifest = manifest_of(ledger, request, fields, environment, _tokenizer(ledger, request))
        manifest = manifest.model_copy(update={"agreement": dict(agreement or {})}).signed()
        check(manifest)
        check_records(manifest)
        standing = _publish(ledger, manifest)
    sweep(ledger, standing)
    return standing


def require_committed(ledger: DepotLedger, request: Request) -> None:
    """Raise MismatchError unless all shards of all fields are committed; tells the first that are not."""
    for field in request.fields:
        records_of(ledger, field, request)


def grow(ledger: DepotLedger, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Replace the manifest of a complete cache by one that tells more of the same shards; the last one stands.

    Raises:
        DamageError: the manifest cannot be read.
        MismatchError: there is no complete cache.
    """
    standing = ledger.manifest()
    if standing is None:
        raise MismatchError(f"{ledger.name} is not complete; give the command of its build again")
    changed = change(standing).signed()
    for name in (COPY, MANIFEST):
        ledger.depot.put(name, changed.to_json())
    ledger.remember(changed)
    return changed


def is_whole(ledger: DepotLedger, manifest: Manifest) -> bool:
    """True if all files of a cache stand in its depot with their sizes, and nothing of its build is left."""
    sizes = {found.name: found.num_bytes for found in ledger.depot.list()}
    if any(_is_left(name, manifest, _listed(manifest)) for name in sizes):
        return False
    wanted = {record.path: record.num_bytes for record in manifest.records}
    wanted |= {file.path: file.page.index_bytes for file in manifest.index}
    wanted |= {f"{TOKENIZER}/{name}": file.num_bytes for name, file in (manifest.tokenizer or {}).items()}
    return COPY in sizes and all(sizes.get(name) == num_bytes for name, num_bytes in wanted.items())


def sweep(ledger: DepotLedger, manifest: Manifest) -> None:
    """Remove what led to a manifest that stands: records, shards that came second, claims, and last what was asked."""
    listed = _listed(manifest)
    left = [found.name for found in ledger.depot.list() if _is_left(found.name, manifest, listed)]
    ledger.depot.delete(*(name for name in left if name != BUILDING))
    ledger.depot.delete(BUILDING)


def _publish(ledger: DepotLedger, manifest: Manifest) -> Manifest:
    """Put a manifest, or help to put that of another worker; gives the one that stands."""
    depot = ledger.depot
    for file in manifest.index:
        depot.put_if_absent(file.path, file.read())
    if not depot.put_if_absent(COPY, manifest.to_json()):
        first = read_manifest(depot, COPY)
        if first.cache_id != manifest.cache_id:
            raise DamageError(
                f"{ledger.name}/{COPY} is of the cache {first.cache_id[:12]} and the shards that stand there make "
                f"{manifest.cache_id[:12]}; delete that file and give the same command again"
            )
        manifest = first
    if not depot.put_if_absent(MANIFEST, manifest.to_json()):
        manifest = read_manifest(depot, MANIFEST)
    ledger.remember(manifest)
    return manifest


def _tokenizer(ledger: DepotLedger, request: Request) -> dict[str, TokenizerFile]:
    """The tokenizer's files that stand in a depot.

    Raises:
        DamageError: they are others than the rows were tokenized with.
    """
    files = {
        found.name.removeprefix(f"{TOKENIZER}/"): ledger.depot.get(found.name)
        for found in ledger.depot.list(f"{TOKENIZER}/")
    }
    if digest_of(files) != request.tokenizer.sha256:
        raise DamageError(
            f"{ledger.name}/{TOKENIZER} holds other files than the rows were tokenized with; delete them and give the "
            "command of the build again"
        )
    return {name: TokenizerFile(num_bytes=len(data), sha256=sha256_hex(data)) for name, data in sorted(files.items())}


def _listed(manifest: Manifest) -> set[str]:
    return {record.path for record in manifest.records} | {file.path for file in manifest.index}


def _is_left(name: str, manifest: Manifest, listed: set[str]) -> bool:
    """True if a file that a manifest does not list was on the way to it."""
    if name == BUILDING or name.startswith((CLAIMS, PROBE)):
        return True
    folder, _, file = name.rpartition("/")
    field = folder.removesuffix(f"/{INDEX}")
    if field not in manifest.fields or name in listed:
        return False
    return is_swept(file, manifest) if folder == field else _PAGE.fullmatch(file) is not None
