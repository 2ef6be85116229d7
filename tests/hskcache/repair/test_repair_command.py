"""``hskcache repair`` as a user meets it."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commanded import parsed, refused, run
from folders import contents, touched
from forked import in_child
from stored import both_manifests, plain, shard_file

from hskcache.cache import open_cache
from hskcache.store.publishing import write_index, write_manifest
from hskcache.verify import verify


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


@pytest.fixture
def damaged(root: Path) -> Path:
    """Of every kind: a flipped byte, a cut, a missing and a swapped file, a stale record, a leftover."""
    path = shard_file(root, "hidden", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)
    shard_file(root, "hidden", -1).write_bytes(b"short")
    shard_file(root, "logits", 0).unlink()
    (root / "logits" / "000004.json").write_text("{}")
    one, two = (shard_file(root, "inputs", shard) for shard in (2, 3))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    (root / "inputs" / "000001.json").write_text("{}")
    (root / "manifest.copy.json").unlink()
    (root / "tokenizer" / "tokenizer_config.json").write_text("{}")
    (root / "manifest.json.00ff.tmp").write_text("half")
    return root


BAD = {
    "hidden/000001.zarr.zip",
    "hidden/constants.zarr.zip",
    "inputs/000001.json",
    "inputs/000002.zarr.zip",
    "inputs/000003.zarr.zip",
    "logits/000000.zarr.zip",
    "logits/000004.json",
    "manifest.copy.json",
    "manifest.json.00ff.tmp",
    "tokenizer",
}
FROM_MANIFEST = {"inputs/000001.json", "logits/000004.json", "manifest.copy.json", "manifest.json.00ff.tmp"}


@pytest.fixture
def served(built: Path) -> Iterator[str]:
    """The whole cache behind an HTTP server that lists nothing and knows no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def list_directory(self, path: Any) -> None:
            self.send_error(403)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_whole_cache_needs_no_teacher_and_is_not_touched(root: Path) -> None:
    before = touched(root)
    result = run("repair", root, "--teacher", "/nowhere", "--data", "/nowhere.tsv")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "nothing to repair" in result.stderr
    assert touched(root) == before
    assert parsed("repair", root)["ok"] is True


def test_the_manifest_alone_mends_what_follows_from_it_and_tells_how_to_mend_the_rest(damaged: Path) -> None:
    found = parsed("repair", damaged, code=1)
    assert {plain(problem["file"]) for problem in found["mended"]} == FROM_MANIFEST
    advice = {plain(problem["file"]): problem["advice"] for problem in found["remaining"]}
    assert advice.keys() == BAD - FROM_MANIFEST
    assert all("--from" in words and "--teacher" in words for words in advice.values())
    assert (found["ok"], found["cache_id"]) == (False, open_cache(damaged).id)
    again = run("repair", damaged)
    assert again.exit_code == 1
    assert "logits/000000.zarr.zip is missing\n" in plain(again.stdout)
    assert "logits/000000.zarr.zip remains: it is damaged; take it from another copy with --from" in plain(again.stdout)
    assert "train.tsv" in again.stdout
    assert "6 problems remain" in again.stderr


def test_the_teacher_and_its_rows_mend_everything(damaged: Path, built: Path, sources: tuple[object, ...]) -> None:
    before = touched(damaged)
    found = parsed("repair", damaged, *sources, "--task", "sst2")
    assert {plain(problem["file"]) for problem in found["mended"]} == BAD
    assert found["remaining"] == []
    assert found["cache_id"] == open_cache(built).id
    assert contents(damaged) == contents(built)
    after = touched(damaged)
    written = {Path(file).relative_to(damaged).as_posix() for file in before if before[file] != after.get(file)}
    folders = {"inputs", "hidden", "logits", "tokenizer"}
    assert {plain(file) for file in written} <= BAD | folders | {"tokenizer/tokenizer_config.json"}


def test_the_task_is_that_of_the_cache_where_no_column_is_named(damaged: Path, sources: tuple[object, ...]) -> None:
    assert run("repair", damaged, *sources).exit_code == 0


@pytest.mark.parametrize("kind", ["folder", "url", "http"])
def test_another_copy_mends_everything(damaged: Path, built: Path, served: str, kind: str) -> None:
    other = {"folder": built, "url": f"file://{built}", "http": served}[kind]
    found = parsed("repair", damaged, "--from", other)
    assert {plain(problem["file"]) for problem in found["mended"]} == BAD
    assert contents(damaged) == contents(built)


def test_a_copy_that_is_damaged_itself_gives_what_is_whole_of_it(
    damaged: Path, built: Path, tmp_path: Path, sources: tuple[object, ...]
) -> None:
    other = Path(shutil.copytree(built, tmp_path / "other"))
    both_manifests(other, b"{")
    shard_file(other, "logits", 0).write_bytes(b"other")
    shutil.copy(shard_file(other, "hidden", 2), shard_file(other, "hidden", 1))
    before = shard_file(damaged, "hidden", 1).read_bytes()
    found = parsed("repair", damaged, "--from", other, code=1)
    left = {plain(problem["file"]): problem["advice"] for problem in found["remaining"]}
    assert left.keys() == {"logits/000000.zarr.zip", "hidden/000001.zarr.zip"}
    assert all(f"is missing or another at file://{other}" in words for words in left.values())
    assert shard_file(damaged, "hidden", 1).read_bytes() == before
    # What the copy lacks, the teacher makes.
    assert run("repair", damaged, "--from", other, *sources).exit_code == 0
    assert contents(damaged) == contents(built)


def test_extra_files_stay_until_they_are_to_be_removed(root: Path, built: Path) -> None:
    (root / "notes.txt").write_text("mine")
    (root / "tokenizer" / "added_tokens.json").write_text("{}")
    for args in ((), ("--from", built)):
        found = parsed("repair", root, *args, code=1)
        assert {problem["file"] for problem in found["remaining"]} == {"notes.txt", "tokenizer"}
        assert all("--remove-extra" in problem["advice"] for problem in found["remaining"])
    assert (root / "notes.txt").read_text() == "mine"
    assert parsed("repair", root, "--remove-extra")["ok"]
    assert contents(root) == contents(built)


def test_a_folder_in_the_place_of_a_file_is_told(root: Path, built: Path, sources: tuple[object, ...]) -> None:
    path = shard_file(root, "hidden", 1)
    path.unlink()
    path.mkdir()
    result = run("repair", root, "--from", built)
    assert result.exit_code == 1
    assert "hidden/000001.zarr.zip remains: it is a folder where a file is needed; move it away" in plain(result.stdout)
    assert run("repair", root, *sources).exit_code == 1
    path.rmdir()
    assert run("repair", root, "--from", built).exit_code == 0
    assert contents(root) == contents(built)


def test_one_field_alone(damaged: Path, built: Path) -> None:
    found = parsed("repair", damaged, "--from", built, "--field", "hidden", code=1)
    hidden = {file for file in BAD if file.startswith("hidden/")}
    assert {plain(problem["file"]) for problem in found["mended"]} == {*hidden, "manifest.copy.json"}
    assert "has no field s30; it has inputs" in refused("repair", damaged, "--field", "s30", "--from", built)


def test_an_added_field_needs_its_teacher_and_no_rows(
    root: Path, tiny_teacher_dir: Path, sources: tuple[object, ...]
) -> None:
    add = ("--add-field", "logits", "--name", "s30", "--teacher", tiny_teacher_dir)
    assert run("build", *add, "--out", root).exit_code == 0
    before = contents(root)
    shard_file(root, "s30", 3).unlink()
    assert "--field s30 --teacher" in run("repair", root).stdout
    teacher = ("--teacher", tiny_teacher_dir)
    assert "give that, or for an added field (s30) --field" in refused("repair", root, *teacher)
    assert "takes its rows from the cache" in refused("repair", root, "--field", "s30", *sources)
    assert run("repair", root, "--field", "s30", *teacher).exit_code == 0
    visible = {name: digest for name, digest in contents(root).items() if not name.startswith(".")}
    assert visible == {name: digest for name, digest in before.items() if not name.startswith(".")}


def test_what_does_not_belong_together_is_refused_and_nothing_changes(
    damaged: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path, sources: tuple[object, ...]
) -> None:
    other = tmp_path / "other.tsv"
    other.write_text("".join(tsv_file.read_text().splitlines(keepends=True)[:50]))
    assert "data.fingerprint" in refused("repair", damaged, "--teacher", tiny_teacher_dir, "--data", other)
    assert "give --teacher" in refused("repair", damaged, "--data", other)
    assert "does not exist" in refused("repair", damaged, "--from", tmp_path / "nothing")
    assert "--keep" in refused("repair", damaged, *sources, "--keep", "full")
    assert "does not exist" in refused("repair", tmp_path / "nothing", "--from", damaged)
    assert "holds rows of a task; give --data" in refused(
        "repair", damaged, "--teacher", tiny_teacher_dir, "--corpus", other
    )


@pytest.mark.parametrize("renames", [0, 1, 3])
def test_a_repair_from_a_copy_that_is_killed_goes_on(damaged: Path, built: Path, renames: int) -> None:
    seen = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and str(arguments[1]).startswith(f"{damaged}/") and ".zarr.zip" in str(arguments[1]):
            seen += 1
            if seen > renames:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: run("repair", damaged, "--from", built), kill) == -signal.SIGKILL
    assert open_cache(damaged).id == open_cache(built).id
    assert {plain(problem.file) for problem in verify(damaged).problems} <= BAD
    assert run("repair", damaged, "--from", built).exit_code == 0
    assert contents(damaged).keys() == contents(built).keys()
    assert verify(damaged).ok


def test_links_become_files(root: Path, built: Path) -> None:
    page = next((root / "hidden" / "index").iterdir())
    for path in (shard_file(root, "logits", 1), page, root / "manifest.json"):
        path.unlink()
        path.symlink_to(built / path.relative_to(root))
    assert run("repair", root, "--from", built).exit_code == 0
    assert not any(path.is_symlink() for path in root.rglob("*"))
    assert contents(root) == contents(built)


def test_a_part_is_mended_from_the_whole(built: Path, tmp_path: Path) -> None:
    whole, part = open_cache(built), tmp_path / "part"
    manifest = whole.manifest.subset(["logits"], range(2, 4))
    shutil.copytree(built / "tokenizer", part / "tokenizer")
    write_index(part, manifest)
    write_manifest(part, manifest)
    found = parsed("repair", part, "--from", built)
    assert (found["ok"], found["cache_id"]) == (True, manifest.cache_id)
    assert open_cache(part).row(0)["logits"].tolist() == whole.row(40)["logits"].tolist()


def test_what_a_repair_has_left_that_was_cut_off_at_the_end_is_removed(root: Path, built: Path) -> None:
    (root / ".repair" / "hidden").mkdir(parents=True)
    shard_file(root / ".repair", "hidden", 1).write_bytes(b"new")
    assert run("verify", root).exit_code == 0
    assert "nothing to repair" in run("repair", root).stderr
    assert contents(root) == contents(built)


def test_help_says_what_the_command_does() -> None:
    assert "exit 1 if something remains" in run("repair", "--help").stdout
