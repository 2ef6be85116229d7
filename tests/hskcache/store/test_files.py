import errno
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import DamageError
from hskcache.store.files import canonical_json, file_sha256, read_file, sha256_hex, write_atomic
from hskcache.store.tokenizer import tokenizer_digest

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé\n0"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("aé0"), inner),
    max_leaves=10,
)


def test_write_makes_the_folders_and_leaves_the_file_alone_in_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, [b"one", b"two"])
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.rglob("*.tmp")) == []


def test_write_replaces_the_whole_of_an_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"a long old content")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process can grow beyond 1000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_write_that_does_not_fit_keeps_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(OSError, match="too large"):
        write_atomic(path, [b"new", bytes(2000)])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_is_readable_by_whom_the_umask_lets_read(tmp_path: Path) -> None:
    """A cache is built by one user and trained from by others."""
    write_atomic(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(st.dictionaries(st.text("aé0"), Json))
def test_canonical_json_is_one_spelling_of_the_value_and_can_be_read_back(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_canonical_json_refuses_what_json_cannot_hold(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_digests_are_sha256() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_digest_covers_every_piece_of_a_large_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == sha256_hex(data)


def test_tokenizer_digest_depends_on_names_and_contents_and_not_on_the_order_of_writing(tmp_path: Path) -> None:
    files = {"vocab.txt": b"a\nb\n", "tokenizer.json": b"{}", "extra/merges.txt": b"a b"}
    for folder, names in {"one": list(files), "two": list(reversed(files))}.items():
        for name in names:
            write_atomic(tmp_path / folder / name, files[name])
    one, two = tmp_path / "one", tmp_path / "two"
    digest = tokenizer_digest(one)
    assert tokenizer_digest(two) == digest
    (two / "vocab.txt").write_bytes(b"a\nc\n")
    assert tokenizer_digest(two) != digest
    (one / "vocab.txt").rename(one / "words.txt")
    assert tokenizer_digest(one) != digest


def test_missing_or_empty_tokenizer_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "tokenizer"):
        with pytest.raises(DamageError, match=str(folder)):
            tokenizer_digest(folder)


def test_only_a_regular_file_of_no_more_than_so_many_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "absurd").open("wb") as file:
        file.truncate(1 << 40)
    for name, words in (
        ("f", "has 5 bytes, of at most 4"),
        ("link", "is a symbolic link"),
        ("pipe", "is not a regular file"),
        ("absurd", "has 1099511627776 bytes"),
        (".", "is not a regular file"),
    ):
        with pytest.raises(DamageError, match=words):
            read_file(tmp_path / name, 4)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 4)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_be_asked_to_sync_is_written_to_like_others(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vfat, SMB and FUSE say for folders, and some for files."""

    def refused(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    write_atomic(tmp_path / "new" / "file", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_disk_that_fails_while_it_is_synced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []
