"""The thread that prepares batches never leaves who waits for them without a word."""

import pytest
import torch

from trainer.loading.prefetch import prefetched


def test_a_device_that_is_not_there_ends_the_wait_for_the_first_batch() -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        next(prefetched(iter([]), torch.device("cuda", 99), 1))
