"""The disk fills, a file cannot be replaced, permission is taken away: one line, and the same command goes on."""

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands_said import said
from material import NUM_ROWS, SPEC, Material
from rights import ForbiddenError, allow_writing, fill, forbid_writing, give_up_override, on_small_disk
from scenarios import CACHE, assert_same, contents
from steps import Moment, Step, Watch, killed_at, run
from stored import plain, shard_file

from hskcache.build.build import build
from hskcache.errors import CacheError
from hskcache.store.ledger import Ledger
from hskcache.verify import verify

# A file of each kind: of the beginning, of the rows, and of the end.
FILES = [
    "c/building.json.*.tmp",
    "c/tokenizer/tokenizer.json.*.tmp",
    "c/hidden/constants-*.zarr.zip.*.tmp",
    "c/inputs/000000-*.zarr.zip.*.tmp",
    "c/attention/000001.json.*.tmp",
    "c/hidden/000002-*.zarr.zip.*.tmp",
    "c/hidden/index/000000-*.jsonl.*.tmp",
    "c/manifest.copy.json.*.tmp",
    "c/manifest.json.*.tmp",
]
ROOM_BYTES = 8 << 20


@pytest.fixture(scope="module")
def arguments(material: Material) -> list[object]:
    return ["build", *material.flags, "--out"]


@pytest.fixture(scope="module")
def expected(arguments: list[object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the command leaves where nothing disturbs it."""
    folder = tmp_path_factory.mktemp("expected")
    assert said([*arguments, folder / CACHE], folder.parent / "notes").code == 0
    assert verify(folder / CACHE).ok
    return contents(folder)


def at(root: Path, file: str, verb: str, act: Callable[[], object]) -> Callable[[], None]:
    """Watch a folder, and act right before something is done to one of its files."""

    def on_step(step: Step, _half: object) -> None:
        if step == Step(verb, file, 0):
            act()

    return lambda: Watch(root, on_step).install()


@pytest.mark.parametrize("verb", ["open", "write"])
@pytest.mark.parametrize("file", FILES)
def test_a_build_whose_disk_fills_says_so_and_ends_with_the_same_bytes_once_there_is_room(
    arguments: list[object], expected: dict[str, str], tmp_path: Path, file: str, verb: str
) -> None:
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    place = disk / "place"
    disk.mkdir()

    def work() -> None:
        place.mkdir()
        full = said([*arguments, place / CACHE], notes, at(place, file, verb, lambda: fill(disk)))
        full.assert_one_line(f"cannot write {place / CACHE}", os.strerror(errno.ENOSPC), "run the same command again")
        assert list(place.rglob("*.tmp")) == []
        (disk / "filler").unlink()
        assert said([*arguments, place / CACHE], notes).code == 0
        assert_same(contents(place), expected)

    try:
        on_small_disk(disk, ROOM_BYTES, work)
    except ForbiddenError as error:
        pytest.skip(str(error))


def test_a_disk_that_is_too_small_from_the_start_is_refused_before_anything_is_written(
    arguments: list[object], tmp_path: Path
) -> None:
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    disk.mkdir()

    def work() -> None:
        # Not even the tokens of the rows have room.
        said([*arguments, disk / CACHE], notes).assert_one_line(f"cannot write to {disk}", os.strerror(errno.ENOSPC))
        assert list(disk.iterdir()) == []

    try:
        on_small_disk(disk, 4096, work)
    except ForbiddenError as error:
        pytest.skip(str(error))


def test_a_limit_on_the_size_of_files_ends_in_one_line_and_holds_nothing_up_later(
    arguments: list[object], expected: dict[str, str], tmp_path: Path
) -> None:
    place, notes = tmp_path / "place", tmp_path / "notes"
    place.mkdir()
    # The limit comes with the first shard and not before, because the words on stderr are a file, too.
    limit = at(
        place, "c/inputs/000000-*.zarr.zip.*.tmp", "open", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    )
    said([*arguments, place / CACHE], notes, limit).assert_one_line(os.strerror(errno.EFBIG))
    assert said([*arguments, place / CACHE], notes).code == 0
    assert_same(contents(place), expected)


@pytest.fixture
def unwritable() -> Iterator[list[Path]]:
    """Folders that are writable again at the end, so that they can be removed."""
    found: list[Path] = []
    yield found
    for folder in found:
        allow_writing(folder)


@pytest.mark.parametrize("file", FILES[1:])
def test_a_build_that_may_no_longer_write_says_so_and_goes_on_when_it_may(
    arguments: list[object], expected: dict[str, str], tmp_path: Path, file: str, unwritable: list[Path]
) -> None:
    place, notes = tmp_path / "place", tmp_path / "notes"
    place.mkdir()
    unwritable.append(place)
    take_away = at(place, file, "open", lambda: forbid_writing(place))

    def first() -> None:
        give_up_override()
        take_away()

    refused = said([*arguments, place / CACHE], notes, first)
    refused.assert_one_line(f"cannot write {place / CACHE}", os.strerror(errno.EACCES))
    allow_writing(place)
    assert said([*arguments, place / CACHE], notes, give_up_override).code == 0
    assert_same(contents(place), expected)


@pytest.mark.parametrize("name", ["hidden/000001.zarr.zip", "attention/000002.json"])
def test_a_file_that_the_writing_thread_cannot_replace_ends_the_build_in_one_line(
    arguments: list[object], expected: dict[str, str], tmp_path: Path, name: str
) -> None:
    place, notes = tmp_path / "place", tmp_path / "notes"
    place.mkdir()
    file = next((file.removeprefix("c/") for file in expected if plain(file) == f"c/{name}"), name)
    pattern = re.sub("-[0-9a-f]{16}", "-*", file)
    begun = at(place, f"c/{pattern}.*.tmp", "open", lambda: (place / CACHE / file).mkdir(parents=True))
    stopped = said([*arguments, place / CACHE], notes, begun)
    stopped.assert_one_line(f"cannot write {place / CACHE}", os.strerror(errno.EISDIR))
    (place / CACHE / file).rmdir()
    assert said([*arguments, place / CACHE], notes).code == 0
    assert_same(contents(place), expected)


def test_an_error_of_the_writing_thread_ends_the_build_soon_and_keeps_what_is_written(
    material: Material, tmp_path: Path
) -> None:
    job = material.job(SPEC.model_copy(update={"shard_rows": 1, "token_budget": 1}))
    out, ledger = tmp_path / "c", Ledger(tmp_path / "c")
    run(lambda: build(job, tmp_path / "undisturbed"))
    killed_at(lambda: build(job, out), tmp_path, Moment(Step("open", "c/hidden/000002-*.zarr.zip.*.tmp", 0)))
    path = out / "hidden" / shard_file(tmp_path / "undisturbed", "hidden", 2).name
    path.mkdir()
    done: list[int] = []
    with pytest.raises(CacheError, match="cannot write"):
        build(job, out, done.append)
    # Beside the two shards that are computed together two may be in the making; two were there.
    assert sum(done) <= 6 < NUM_ROWS
    assert all(ledger.is_committed(field, shard) for field in job.fields for shard in (0, 1))
    path.rmdir()
    build(job, out)
    assert_same(contents(out), contents(tmp_path / "undisturbed"))
