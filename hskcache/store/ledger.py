"""The commit protocol: which files make a cache, in which order they appear, and what their presence proves.

A build begins with ``building.json`` (the request). Each shard is written, then its commit record; a shard without
a record that fits it does not count. At the end come the pages of records, ``manifest.copy.json`` and, the same again,
``manifest.json``, with which the cache is complete; then the commit records are removed, and ``building.json`` last.
Every file appears at once (``files.write_atomic``), so that a kill at any moment leaves a folder from which the same
build goes on: what is recorded is whole, and what is not is computed again. Several processes may commit different
shards.
"""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from hskcache.counted import counted
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import locked
from hskcache.store.agreement import Agreement
from hskcache.store.commits import Commits, manifest_of
from hskcache.store.fields import Field
from hskcache.store.files import remove_matching
from hskcache.store.growth import LOCK, written
from hskcache.store.manifest import Manifest, Request
from hskcache.store.publishing import COPY, MANIFEST, TEMPORARY, publish, sweep
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.request import BuildDraft
from hskcache.store.survey import SPOOL, SPOOL_FILES, Building, Complete, State, Vacant, build_in, survey
from hskcache.store.tokenizer import tokenizer_files
from hskcache.store.version2 import VERSION_2

TOKENIZER = "tokenizer"


class Ledger(Commits):
    """The files of one cache."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._known: tuple[object, Manifest | None] = None, None

    def begin(self, request: Request, environment: Mapping[str, str] | None = None) -> None:
        """Start a build here, or go on with one of the same request.

        Args:
            request: of the cache.
            environment: that whoever goes on must keep to; of a build that goes on it stays what it was.

        Raises:
            MismatchError: the folder holds another request's cache, or something that is no cache; nothing is touched.
            DamageError: the folder holds a cache whose manifest or request cannot be read.
        """
        state = survey(self.root)
        if isinstance(state, Complete):
            self.require_current(state.manifest)
        found = self.request(state)
        if found is None:
            draft = BuildDraft(**dict(request), environment=dict(environment or {}))
            build_in(self.root).begin(written(draft))
            return
        require_same(self.name, found, request)

    def require_current(self, manifest: Manifest) -> None:
        """Raise unless the cache is of the version of the format that is written.

        Raises:
            MismatchError: it is of an older one.
        """
        if manifest.format != VERSION_2:
            raise MismatchError(
                f"{self.root} is of format version {manifest.format_version}, which is read and no longer written; "
                f"first give {shlex.join(['hskcache', 'upgrade', str(self.root), 'NEW'])}"
            )

    def request(self, state: State | None = None) -> Request | None:
        """The request of the cache or the unfinished build that stands here; None where a build may begin.

        Args:
            state: of the folder; None: as it is now.

        Raises:
            MismatchError: the folder holds something that is no cache, or that is not built.
            DamageError: the manifest or the request cannot be read.
        """
        state = state or survey(self.root)
        if not isinstance(state, Vacant | Building | Complete):
            raise MismatchError(f"{self.root} holds files that are not a cache's; choose another folder or empty it")
        return state.request

    def finish(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        agreement: Mapping[str, Agreement] | None = None,
    ) -> Manifest:
        """Write the manifest, which completes the cache, and remove what the build left behind.

        Fields that were added to the cache before, when it was complete, stay in it.

        Args:
            request: of the cache.
            fields: that it asks for.
            environment: what computed them.
            agreement: of logits with the labels, by field.

        Raises:
            MismatchError: a shard is not committed, or rows were appended meanwhile to what another process finished.
            DamageError: a shard does not hold what its field stores.
        """
        # What a kill has left half written is none of the tokenizer's files.
        for path in (self.root / TOKENIZER).rglob(TEMPORARY):
            path.unlink(missing_ok=True)
        manifest = manifest_of(self, request, fields, environment, tokenizer_files(self.root / TOKENIZER))
        manifest = manifest.model_copy(update={"agreement": dict(agreement or {})})

        def change(standing: Manifest) -> Manifest:
            require_same(self.name, standing.request, request)
            # Nobody else may write a manifest now, so what is half written is what a kill has left.
            remove_matching(self.root, TEMPORARY)
            return manifest.with_added(standing)

        # Where there is no manifest yet, nobody else may write one.
        grown = self.complete(manifest) if self._complete() is None else self.grow(change)
        sweep(self.root, grown, fields)
        _remove_spool(self.root / SPOOL)
        build_in(self.root).end()
        return grown

    def complete(self, manifest: Manifest) -> Manifest:
        """Put a manifest in place, with which the cache is complete; nobody else may do so meanwhile.

        Returns:
            The manifest, signed.

        Raises:
            DamageError: a record is not what its field stores.
        """
        signed = manifest.signed()
        publish(self.root, signed)
        for name in (COPY, MANIFEST):
            remove_matching(self.root, f"{name}{TEMPORARY}")
        return signed

    def grow(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Replace the manifest by one that lists more, at once; no other takes its place meanwhile.

        Args:
            change: makes it of the one that stands here.

        Raises:
            MismatchError: the cache is of an older version of the format; or as ``change``.
            DamageError: the manifest was edited; or as :meth:`complete`.
            CacheError: there is no complete cache.
        """
        with locked(self.root / LOCK, remove=True):
            standing = self.intact()
            self.require_current(standing)
            return self.complete(change(standing))

    def _listed(self, field: str, shard: int) -> Record | None:
        """The record of a shard in the manifest that stands here, if there is one and it lists that."""
        known = tuple(_stat(self.root / name) for name in (MANIFEST, COPY))
        if self._known[0] != known:
            try:
                self._known = known, self.manifest() if any(known) else None
            except CacheError:
                self._known = known, None
        manifest = self._known[1]
        if manifest is None or field not in manifest.fields:
            return None
        if shard == CONSTANTS:
            return manifest.constants.get(field)
        records = manifest.shards[field]
        try:
            return records[shard] if shard < len(records) else None
        except DamageError:
            return None

    def manifest(self) -> Manifest:
        """The manifest of the complete cache that stands here.

        Raises:
            CacheError: there is nothing here, or no cache.
            MismatchError: the build is not finished, or the format is newer than this program.
            DamageError: the manifest cannot be read.
        """
        state = survey(self.root)
        if isinstance(state, Complete):
            return state.manifest
        if isinstance(state, Building) and (request := state.request) is not None:
            raise MismatchError(
                f"{self.root} is a build that was cut off: {self.num_committed(request)} of {request.num_shards} "
                "shards are written; run the same build command again to finish"
            )
        if state.begun_by:
            raise MismatchError(
                f"{self.root} is what {state.begun_by} has written that was cut off; run the same command again to "
                "finish"
            )
        what = "has no manifest.json, so it is not a cache" if self.root.exists() else "does not exist"
        raise CacheError(f"{self.root} {what}; give the folder that a build wrote")

    def intact(self) -> Manifest:
        """The manifest of the complete cache that stands here, once it is known that nobody has changed it by hand.

        Raises:
            DamageError: it was edited.
            CacheError: as :meth:`manifest`.
        """
        state = self._complete()
        return self.manifest() if state is None else state.intact()

    def _complete(self) -> Complete | None:
        state = survey(self.root)
        return state if isinstance(state, Complete) else None


def require_same(name: str, found: Request, request: Request) -> None:
    """Raise unless what stands at a place is what a build asks for.

    Args:
        name: of the place.
        found: what stands there, or was begun.
        request: of the build.

    Raises:
        MismatchError: it is not; tells the first difference.
    """
    if found.digest == request.digest:
        return
    if found.appended and found.model_copy(update={"appended": []}).digest == request.digest:
        raise MismatchError(
            f"{name} is built, and {counted(found.num_rows - request.num_rows, 'row')} were appended "
            "to it since; to "
            "append more give hskcache append, and to mend it hskcache repair"
        )
    path, here, wanted = found.difference(request) or ("the request", "another", "this")
    raise MismatchError(
        f"{name} was begun with {path} = {here!s:.80} and this build asks for {wanted!s:.80}; choose another "
        "folder, delete this one, or ask for the same"
    )


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _remove_spool(folder: Path) -> None:
    """Remove the rows of a corpus; what else somebody may have put there stays."""
    if not folder.is_dir():
        return
    for name in SPOOL_FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
