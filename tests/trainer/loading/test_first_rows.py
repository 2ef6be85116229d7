"""Training on the first rows of a cache alone: the same as on a cache that holds no more."""

from collections.abc import Callable

import pytest

from hskcache.cache import Cache
from hskcache.errors import MismatchError
from trainer.loading import KnowledgeLoader


@pytest.mark.parametrize("residency", ["device", "host", "stream"])
@pytest.mark.parametrize("num_rows", [1, 8, 13, 95, 96])
def test_every_one_of_the_first_rows_comes_once_and_no_other(
    caches: Callable[[str], Cache], residency: str, num_rows: int
) -> None:
    """Within a shard and at its end, over two epochs of other orders."""
    loader = KnowledgeLoader(caches("bitmask"), residency=residency, batch_size=5, num_rows=num_rows)
    epochs = [[row for batch in loader for row in batch.row_ids] for _ in range(2)]
    assert all(sorted(rows) == list(range(num_rows)) for rows in epochs)
    assert len(loader) == -(-num_rows // 5)
    assert num_rows < 8 or epochs[0] != epochs[1]


def test_shards_beyond_the_first_rows_are_not_read(caches: Callable[[str], Cache]) -> None:
    whole, few = (KnowledgeLoader(caches("bitmask"), num_rows=count) for count in (None, 8))
    assert few.reader.num_bytes < whole.reader.num_bytes / 8


def test_a_place_among_other_rows_is_no_place_to_go_on_from(caches: Callable[[str], Cache]) -> None:
    state = KnowledgeLoader(caches("bitmask"), num_rows=40).state_dict()
    KnowledgeLoader(caches("bitmask"), num_rows=40).load_state_dict(state)
    for other in (None, 41):
        with pytest.raises(MismatchError, match="identity"):
            KnowledgeLoader(caches("bitmask"), num_rows=other).load_state_dict(state)


@pytest.mark.parametrize("num_rows", [0, 97])
def test_more_rows_than_there_are_are_refused(caches: Callable[[str], Cache], num_rows: int) -> None:
    with pytest.raises(MismatchError, match="give 1 to 96"):
        KnowledgeLoader(caches("bitmask"), num_rows=num_rows)
