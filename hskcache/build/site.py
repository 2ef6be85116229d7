"""Contract of a site: the place where a cache is built, a folder or a depot.

A build knows its site and no more, so that it goes one way wherever it is: it looks what stands there, begins or takes
part, writes shards through the site's ledger under the site's claims, and finishes.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from hskcache.store.agreement import Agreement
from hskcache.store.claims import Claims
from hskcache.store.commits import Committing
from hskcache.store.fields import Field
from hskcache.store.manifest import Manifest, Request


class Site(Protocol):
    """A place where one cache is built, or stands."""

    @property
    def name(self) -> str:
        """The place in messages: a folder, or a URL."""
        ...

    @property
    def ledger(self) -> Committing:
        """The shards of the cache."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment that the build here began with, or the cache was built in."""
        ...

    @property
    def spool_folder(self) -> Path:
        """Folder of this machine on whose disk texts and tokens of rows may stand while they are built."""
        ...

    def request(self) -> Request | None:
        """The request of the cache or the unfinished build that stands here; None where a build may begin.

        Raises:
            MismatchError: something stands here that is no cache, or that is not built.
            DamageError: the manifest or the request cannot be read.
        """
        ...

    def require_same(self, request: Request) -> None:
        """Raise MismatchError unless nothing was begun here, or what a build of this request does."""
        ...

    def require_room(self) -> None:
        """Raise CacheError where no build can begin, which is known before a teacher is loaded."""
        ...

    def require_space(self, num_bytes: int) -> None:
        """Raise CacheError where there is no space for so many bytes more, as far as that can be known."""
        ...

    def reaching(self) -> AbstractContextManager[None]:
        """Turn what a disk says into one line."""
        ...

    def packing(self) -> AbstractContextManager[Path]:
        """Be the one process that packs the rows of a corpus where others may take them up.

        Whoever comes second finds them there, or the cache, so that is to be looked at again.

        Returns:
            Folder of the rows, which stands at least as long as this process builds.
        """
        ...

    def sharing(self) -> AbstractContextManager[Claims]:
        """Take part in a build with other workers; the site is made if it is missing.

        Raises:
            CacheError: several workers cannot be told apart there, or it cannot be written.
        """
        ...

    def begin(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        tokenizer: Mapping[str, bytes],
    ) -> None:
        """Start a build, or go on with one of the same request.

        Args:
            request: of the cache.
            fields: that it asks for.
            environment: what computes them.
            tokenizer: its files by path within their folder.

        Raises:
            MismatchError: another request's cache stands here, or one that others compute otherwise.
        """
        ...

    def written(self, tokenizer_sha256: str) -> Manifest | None:
        """The manifest of the cache if all its files stand here and nothing of its build is left, else None.

        Whether other workers are still at it is not asked. Raises DamageError if it cannot be read, or was edited.
        """
        ...

    def is_claimed(self) -> bool:
        """True if workers divide a build here, or the last of them died before it could leave."""
        ...

    def look_again(self) -> None:
        """Forget what is known of which shards are committed."""
        ...

    def finish(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        agreement: Mapping[str, Agreement],
    ) -> Manifest:
        """Complete the cache with its manifest, and remove what the build left behind.

        Raises:
            MismatchError: a shard is not committed.
            DamageError: a shard does not hold what its field stores.
        """
        ...

    def intact(self) -> Manifest:
        """The manifest of the complete cache. Raises CacheError if there is none that nobody has edited."""
        ...

    def grow(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Replace the manifest of the complete cache by one that tells more, at once."""
        ...
