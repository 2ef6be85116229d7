"""A part of a cache, or what was built of one, is worked on as the whole would be."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from folders import KEEP, contents
from stored import shard_file

from hskcache.build.addition import add_field, prepare_addition
from hskcache.build.append import append
from hskcache.build.build import build, finished
from hskcache.build.job import Job
from hskcache.cache import open_cache
from hskcache.errors import MismatchError
from hskcache.move.push import push
from hskcache.move.selected import Subset
from hskcache.remote.remote import open_remote
from hskcache.repair.recompute import addition_source, recompute, source_of
from hskcache.teacher.load import Teacher
from hskcache.verify import verify


def part_of(root: Path, to: Path, fields: tuple[str, ...] | None, rows: tuple[int, int] | None = None) -> Path:
    push(root, open_remote(f"file://{to}"), Subset(fields, rows))
    return to


def test_a_build_in_a_part_without_some_fields_makes_the_whole_of_it(job: Job, whole: Path, tmp_path: Path) -> None:
    part = part_of(whole, tmp_path / "part", ("logits",))
    assert finished(job, part) is None
    build(job, part)
    # A push leaves names that begin with a dot.
    assert {name: digest for name, digest in contents(part).items() if name[0] not in ".R"} == contents(whole)


def test_a_field_added_to_a_part_is_that_of_the_whole_even_where_positions_are_drawn(
    whole: Path, teacher: Teacher, spec_of: Any, tmp_path: Path
) -> None:
    """Each row has draws of its own, by its number in the whole."""
    root = Path(shutil.copytree(whole, tmp_path / "c"))
    part = part_of(whole, tmp_path / "part", ("logits",), (10, 25))
    spec = spec_of("1l_2t", length__score="random", max_length=48, shard_rows=5)
    for place in (root, part):
        add_field(prepare_addition(teacher, open_cache(place), "hidden", "drawn", spec))
    here, there = open_cache(part), open_cache(root)
    assert here.num_rows == 15
    drawn = [
        [shard_file(place, "drawn", shard).read_bytes() for shard in shards]
        for place, shards in ((part, range(3)), (root, range(2, 5)))
    ]
    assert drawn[0] == drawn[1]
    assert there.manifest.first_row == 0
    shard_file(part, "drawn", 1).unlink()
    record = here.manifest.shards["drawn"][1]
    assert recompute(addition_source(teacher, here, "drawn"), here, [record]) == ([record], {})
    assert verify(part).ok


def test_rows_of_a_part_are_not_computed_from_all(job: Job, whole: Path, tmp_path: Path) -> None:
    part = open_cache(part_of(whole, tmp_path / "part", None, (10, 25)))
    with pytest.raises(MismatchError, match=r"holds the rows 10 to 24 of another cache.* --from"):
        source_of(job, part)


def test_rows_are_appended_to_a_copy_without_the_fields_that_were_added(
    whole: Path, grown: Path, teacher: Teacher, new: Job, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "c"))
    add_field(prepare_addition(teacher, open_cache(root), "logits", "more"))
    with pytest.raises(MismatchError, match=r"hskcache push .* --fields inputs,logits,hidden file:///NEW/COPY makes"):
        append(new, open_cache(root))
    copy = part_of(root, tmp_path / "copy", ("inputs", "logits", "hidden"))
    assert open_cache(copy).id == open_cache(whole).id
    append(new, open_cache(copy))
    assert open_cache(copy).id == open_cache(grown).id
    assert KEEP["shard_rows"] == open_cache(copy).manifest.request.shard_rows
