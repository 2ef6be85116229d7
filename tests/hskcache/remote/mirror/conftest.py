"""A cache and a server of it, for the tests of mirrors."""

from collections.abc import Iterator

import pytest
from mirrored import write_cache
from unsteady import Unsteady, serving

from hskcache.cache import Cache


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return write_cache(tmp_path_factory.mktemp("original") / "cache.hsk")


@pytest.fixture
def server(original: Cache) -> Iterator[Unsteady]:
    with serving(original.root) as running:
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "0.5")
