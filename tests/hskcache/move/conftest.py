"""What the tests of transport begin with."""

import pytest
from noise import write_cache

from hskcache.cache import Cache


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache here, which no test changes."""
    return write_cache(tmp_path_factory.mktemp("original") / "c.hsk")
