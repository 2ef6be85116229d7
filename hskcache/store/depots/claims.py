"""Claims on shards of a cache in a depot: files that say who is at what, and end after a while.

A claim keeps workers from computing what another computes, and nothing else depends on it: of two that commit a shard
the first one counts. It ends when its worker has not put it again for ``LEASE_S`` by the clock of the store, which is
the only one that is looked at, so that clocks of workers may differ.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hskcache.depot.abc import Depot
from hskcache.errors import CacheError
from hskcache.store.claims import Claims

CLAIMS = ".building/"
"""Folder of the claims; readers and hubs leave such names alone."""

LEASE_S = 90.0
"""Seconds after which a claim that was not put again is nobody's."""

_LOOK_S = 3.0
"""Seconds for which a look at the claims of others is good."""


class DepotClaims(Claims):
    """Shards that this worker has taken on.

    Args:
        depot: of the cache.
        ahead_s: seconds that the clock of the store is ahead of this machine's.
        on_claim: told of a shard that is taken on, which another may have written just before.
    """

    poll_s = 2.0

    def __init__(self, depot: Depot, ahead_s: float, on_claim: Callable[[int], None]) -> None:
        super().__init__(None)
        self._depot = depot
        self._ahead_s = ahead_s
        self._on_claim = on_claim
        self._me = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}".encode()
        self._mine: set[int] = set()
        self._others: dict[str, float] = {}
        self._looked_at = float("-inf")
        self._mutex = threading.Lock()
        self._is_over = threading.Event()

    def claim(self, shard: int) -> bool:
        """Take on a shard, unless another worker is at it; it is let go with :meth:`release`, or after a while.

        Whoever takes one on must look once more whether it is still to be written.
        """
        name = _name(shard)
        put_s = self._look().get(name)
        if put_s is not None and put_s + LEASE_S > time.time() + self._ahead_s:
            return False
        if put_s is not None:
            # Two may do so at once, which costs work.
            self._depot.put(name, self._me)
        elif not self._depot.put_if_absent(name, self._me):
            self._others[name] = time.time() + self._ahead_s
            return False
        with self._mutex:
            self._mine.add(shard)
        self._others.pop(name, None)
        self._on_claim(shard)
        return True

    def release(self, shard: int) -> None:
        """Let a shard go, written or not."""
        with self._mutex:
            self._mine.discard(shard)
        self._depot.delete(_name(shard))

    @contextmanager
    def alone(self, idle: bool = False) -> Iterator[None]:
        """Do what several may do at once, since whatever is put is put if it is absent."""
        yield

    def clear(self) -> None:
        """Remove claims of processes of this machine that are dead; of others nobody here can tell."""
        host = self._me.split()[0]
        for found in self._depot.list(CLAIMS):
            with suppress(FileNotFoundError, ValueError):
                where, process, _ = self._depot.get(found.name).split()
                if where == host and not _is_alive(int(process)):
                    self._depot.delete(found.name)

    @contextmanager
    def kept(self) -> Iterator["DepotClaims"]:
        """Put the claims again before they end, in a thread of its own, and let them all go at the end."""
        thread = threading.Thread(target=self._keep, name="hskcache-claims", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            thread.join()
            for shard in sorted(self._mine):
                # An error in here must not take the place of the one that may have brought us here.
                with suppress(CacheError):
                    self._depot.delete(_name(shard))

    def _keep(self) -> None:
        while not self._is_over.wait(LEASE_S / 3):
            for shard in sorted(self._mine):
                # One that is let go meanwhile is not to come back.
                with suppress(CacheError), self._mutex:
                    if shard in self._mine:
                        self._depot.put(_name(shard), self._me)

    def _look(self) -> dict[str, float]:
        """Names of the claims of others, and when each was put, by the clock of the store."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._others = {found.name: found.modified_s for found in self._depot.list(CLAIMS)}
            with self._mutex:
                for shard in self._mine:
                    self._others.pop(_name(shard), None)
            self._looked_at = time.monotonic()
        return self._others


def _name(shard: int) -> str:
    return f"{CLAIMS}{shard:06d}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
