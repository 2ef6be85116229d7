"""``hskcache append`` as a user meets it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commanded import KEEP, SMALL, parsed, refused, run
from folders import contents
from stored import MANIFESTS, shard_file

from hskcache.build.append import append
from hskcache.build.job import prepare_job
from hskcache.build.request import Texts
from hskcache.cache import open_cache
from hskcache.cli.parts import make_part_job
from hskcache.teacher.load import load_teacher
from hskcache.text import examples_for, load_task, tokenize


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


@pytest.fixture(scope="session")
def more_file(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 more rows, of one class."""
    lines = tsv_file.read_text().splitlines()
    ones = [line.replace("\t", " indeed\t") for line in lines[1:] if line.endswith("1")][:25]
    path = tmp_path_factory.mktemp("more") / "more.tsv"
    path.write_text("\n".join([lines[0], *ones]) + "\n")
    return path


def test_rows_are_appended_told_shown_and_mended(
    root: Path, tiny_teacher_dir: Path, more_file: Path, sources: tuple[object, ...]
) -> None:
    teacher = ("--teacher", tiny_teacher_dir)
    found = parsed("append", root, *teacher, "--data", more_file)
    assert (found["num_appended"], found["num_rows"]) == (25, 121)
    assert found["cache_id"] == open_cache(root).id
    assert run("verify", root).exit_code == 0
    assert parsed("info", root)["num_rows"] == 121
    row = parsed("view", root, 120)
    assert (row["row_id"], row["label"]) == (120, "1")
    assert "already; give other data, or --again" in refused("append", root, *teacher, "--data", more_file)
    # The first build's command does no harm, and says why it does nothing.
    before = contents(root)
    line = refused("build", *sources, "--task", "sst2", *KEEP, *SMALL, "--out", root)
    assert "is built, and 25 rows were appended to it since" in line
    assert contents(root) == before
    shard_file(root, "hidden", 6).unlink()
    assert "more.tsv" in run("repair", root).stdout
    assert run("repair", root, *sources).exit_code == 1
    assert run("repair", root, *teacher, "--data", more_file).exit_code == 0
    assert contents(root) == before


def test_rows_on_the_disk_are_appended_as_those_in_memory(
    root: Path, tiny_teacher_dir: Path, more_file: Path, tmp_path: Path
) -> None:
    cache, teacher = open_cache(root), load_teacher(str(tiny_teacher_dir), "cpu")
    shutil.copytree(root, tmp_path / "other")
    job = make_part_job(cache, str(tiny_teacher_dir), "cpu", Texts(str(more_file)), tmp_path)
    assert isinstance(job.rows.input_ids, np.memmap)
    examples = examples_for(more_file, load_task("sst2"))
    assert isinstance(examples.texts, list)
    held = prepare_job(teacher, examples, tokenize(examples, teacher.tokenizer, job.spec.max_length), job.spec)
    append(held, open_cache(tmp_path / "other"))
    assert run("append", root, "--teacher", tiny_teacher_dir, "--data", more_file).exit_code == 0
    one, other = contents(root), contents(tmp_path / "other")
    assert {name: one[name] for name in one if name not in MANIFESTS} == {
        name: other[name] for name in other if name not in MANIFESTS
    }
    assert open_cache(root).id == open_cache(tmp_path / "other").id


def test_a_corpus_goes_on_with_more_text(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    lines = [line.partition("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    first, second, root = tmp_path / "first.txt", tmp_path / "second.txt", tmp_path / "c"
    first.write_text("\n".join(lines[:60]) + "\n")
    second.write_text("\n".join(lines[60:]) + "\n")
    teacher = ("--teacher", tiny_teacher_dir)
    keep = ("--keep", "1l_2t", "--student-layers", "2", "--max-length", "24", "--shard-rows", "8")
    assert run("build", *teacher, "--corpus", first, *keep, "--out", root).exit_code == 0
    total = open_cache(root).num_rows
    assert "holds a corpus; give --corpus" in refused("append", root, *teacher, "--data", tsv_file)
    assert parsed("append", root, *teacher, "--corpus", second)["num_rows"] > total
    assert run("verify", root).exit_code == 0
    before = contents(root)
    shard_file(root, "inputs", 0).unlink()
    assert run("repair", root, *teacher, "--corpus", first).exit_code == 0
    assert contents(root) == before
    assert not any(root.glob(".[ar]*"))


def test_help_says_what_the_command_does() -> None:
    assert "append them to a finished cache" in run("append", "--help").stdout
