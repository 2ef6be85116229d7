"""Two caches, and an HDF5 file and a tar of the first, for all tests of this folder."""

from pathlib import Path

import pytest
from handwritten import Shape, write_cache


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 30 and 4 rows in shards of 7, whose larger datasets have several chunks."""
    folder = tmp_path_factory.mktemp("whole") / "c"
    lengths = (9, 8, 7) * 10
    write_cache(folder, Shape(lengths, (5, 40, 2, 7), 7, 8, 900, 750, columns="indices", encoding="float32"))
    return folder


@pytest.fixture(scope="session")
def exported(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HDF5 file of that cache."""
    from hskcache.move.hdf5 import export_hdf5

    out = tmp_path_factory.mktemp("exported") / "c.h5"
    export_hdf5(whole, out)
    return out


@pytest.fixture(scope="session")
def packed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of that cache."""
    from hskcache.move.pack import pack

    out = tmp_path_factory.mktemp("packed") / "c.tar"
    pack(whole, out)
    return out
