"""Fixtures of the trainer's tests: caches of the tiny teacher over the tiny data set, built once each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from additions import Grown, grow
from handmade import Plan, write
from tiny import cache_of, config_file, job_of, spec_of

from hskcache.cache import Cache

Caches = Callable[[str], Cache]


@pytest.fixture(scope="session")
def caches(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Caches:
    """The float32 cache of a width scheme: 12 shards of 8 rows, two layers, up to 9 positions a row."""

    @cache
    def build(width: str) -> Cache:
        folder = tmp_path_factory.mktemp("cache") / width
        return cache_of(job_of(tiny_teacher_dir, tsv_file, spec_of(width)), folder)

    return build


@pytest.fixture(scope="session")
def cache_dir(caches: Caches) -> Path:
    """The cache with its columns as bitmasks."""
    return caches("bitmask").root


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's config narrower than the teacher, so that a projection is needed."""
    return config_file(tmp_path_factory.mktemp("narrow"), width=16)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's config as wide as the teacher."""
    return config_file(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="session")
def written(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cache]:
    """A cache written by hand, see handmade.py, by what it differs in from the usual one."""
    made: dict[str, Cache] = {}

    def write_once(**changes: Any) -> Cache:
        key = repr(sorted(changes.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("written") / "cache"
            made[key] = write(folder, tiny_teacher_dir, tsv_file, Plan(**changes))
        return made[key]

    return write_once


@pytest.fixture(scope="session")
def grown(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A cache to which other teachers added fields, see additions.py."""
    return grow(tmp_path_factory.mktemp("grown"), tiny_teacher_dir, tsv_file)
