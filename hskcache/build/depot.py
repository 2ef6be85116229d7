"""A depot as the site of a build: a bucket, which workers share that have no disk in common."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

from hskcache.depot.abc import Depot
from hskcache.depot.unconditional import Unconditional, nature_of
from hskcache.errors import CacheError
from hskcache.store.agreement import Agreement
from hskcache.store.claims import UNSHARED, Claims
from hskcache.store.depots import finishing
from hskcache.store.depots.claims import DepotClaims
from hskcache.store.depots.ledger import DepotLedger
from hskcache.store.fields import Field
from hskcache.store.ledger import require_same
from hskcache.store.manifest import Manifest, Request

MOST_SKEW_S = 900.0
"""Seconds that the clock of a worker may be off; servers refuse what is signed by one that is off by more."""


class DepotSite:
    """A depot where a cache is built; on the disk of this machine stands nothing of it.

    Args:
        depot: the place.
        is_part: whether each worker has shards of its own, so that none is in another's way.
    """

    def __init__(self, depot: Depot, is_part: bool = False) -> None:
        self._depot = depot
        self._is_part = is_part
        self.ledger = DepotLedger(depot)

    @property
    def name(self) -> str:
        """The URL."""
        return self._depot.url

    @property
    def environment(self) -> Mapping[str, str]:
        """As :attr:`Site.environment`."""
        if (manifest := self.ledger.manifest()) is not None:
            return manifest.environment
        draft = self.ledger.draft()
        return {} if draft is None else draft.environment

    @property
    def spool_folder(self) -> Path:
        """As :attr:`Site.spool_folder`: that of temporary files."""
        return Path(tempfile.gettempdir())

    def request(self) -> Request | None:
        """As :meth:`Site.request`."""
        return self.ledger.request()

    def require_same(self, request: Request) -> None:
        """As :meth:`Site.require_same`."""
        if (found := self.request()) is not None:
            require_same(self.name, found, request)

    def require_room(self) -> None:
        """As :meth:`Site.require_room`: whether there is a bucket that we may read, and nothing foreign in it."""
        self.request()

    def require_space(self, num_bytes: int) -> None:
        """As :meth:`Site.require_space`: a bucket has no end."""

    def reaching(self) -> nullcontext[None]:
        """As :meth:`Site.reaching`: a depot tells in one line by itself."""
        return nullcontext()

    @contextmanager
    def packing(self) -> Iterator[Path]:
        """As :meth:`Site.packing`: in a temporary folder, as each worker packs for itself."""
        yield Path(self._temporary.name)

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="hskcache-")

    @contextmanager
    def sharing(self) -> Iterator[Claims]:
        """As :meth:`Site.sharing`.

        Raises:
            CacheError: the store keeps no conditions, and workers have no shards of their own; or the clock of this
                machine is off.
        """
        nature = nature_of(self._depot)
        if abs(nature.ahead_s) > MOST_SKEW_S:
            behind = "behind" if nature.ahead_s > 0 else "ahead of"
            raise CacheError(
                f"the clock of this machine is {abs(nature.ahead_s) / 60:,.0f} minutes {behind} that of {self.name}; "
                "set it, and give the command again"
            )
        if nature.keeps_conditions:
            claims = DepotClaims(self._depot, nature.ahead_s, self.ledger.look_again)
            claims.clear()
            with claims.kept():
                yield claims
            return
        if not self._is_part:
            raise CacheError(
                f"{self.name} cannot put a file only if it is absent, by which workers share a build; give --part 1/1 "
                "to one worker, or --part 1/N to --part N/N to several"
            )
        self.ledger.depot = Unconditional(self._depot)
        yield UNSHARED

    def begin(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        tokenizer: Mapping[str, bytes],
    ) -> None:
        """As :meth:`Site.begin`; others keep to the versions and to how rows are batched, not to the device."""
        self.ledger.begin(request, fields, environment, tokenizer)

    def written(self, tokenizer_sha256: str) -> Manifest | None:
        """As :meth:`Site.written`; the size of every file is looked at, not its content."""
        manifest = self.ledger.manifest()
        if manifest is None or manifest.request.tokenizer.sha256 != tokenizer_sha256:
            return None
        return manifest if finishing.is_whole(self.ledger, manifest) else None

    def is_claimed(self) -> bool:
        """As :meth:`Site.is_claimed`: claims that are left make a cache unfinished, see :meth:`written`."""
        return False

    def look_again(self) -> None:
        """As :meth:`Site.look_again`."""
        self.ledger.list_again()

    def finish(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        agreement: Mapping[str, Agreement],
    ) -> Manifest:
        """As :meth:`Site.finish`; several workers may do so at once."""
        return finishing.finish(self.ledger, request, fields, environment, agreement)

    def intact(self) -> Manifest:
        """As :meth:`Site.intact`."""
        if (manifest := self.ledger.manifest()) is None:
            raise CacheError(f"{self.name} is not complete; give the command of its build again")
        return manifest

    def grow(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """As :meth:`Site.grow`; the last one stands."""
        return finishing.grow(self.ledger, change)
