"""Material of the fault suites, made once; children are forked, so nothing here leaves threads behind."""

from pathlib import Path

import pytest
from material import Material


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    import torch

    torch.set_num_threads(1)
    material = Material(tmp_path_factory.mktemp("material"))
    material.warm()
    return material


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and OpenMP's do not survive a fork."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def built(material: Material) -> Path:
    """A cache of every kind of file, with a field that was added."""
    return material.grown
