"""What a build cannot do it refuses in one sentence, before it touches anything."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import KEEP, contents, touched, unfinished_copy

from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.errors import CacheError, MismatchError, TeacherError
from hskcache.store.files import sha256_hex
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples, load_tokenizer

CHANGES = {
    "spec.hidden.length.tokens": {"keep": "5t_0.25h"},
    "spec.hidden.width.seed": {"width__seed": 1},
    "spec.hidden.length.score": {"length__score": "left"},
    "spec.hidden.encoding": {"encoding": "int4"},
    "spec.token_budget": {"token_budget": 41},
    "spec.shard_rows": {"shard_rows": 6},
}


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("where", CHANGES)
def test_another_spec_is_refused_with_its_key_and_nothing_is_touched(
    where: str, unfinished: bool, job: Job, whole: Path, job_of: Any, tmp_path: Path
) -> None:
    out = unfinished_copy(job, whole, tmp_path) if unfinished else whole
    before = touched(out)
    with pytest.raises(MismatchError, match=rf"{where} = "):
        build(job_of(**(KEEP | CHANGES[where])), out)
    assert touched(out) == before


def test_other_rows_another_teacher_and_another_tokenizer_are_refused_by_name(
    whole: Path, job_of: Any, pairs: Examples, teacher: Teacher, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    before = touched(whole)
    with pytest.raises(MismatchError, match=r"data\.fingerprint"):
        build(job_of(rows=pairs, **KEEP), whole)
    changed = load_teacher(str(tiny_teacher_dir), "cpu")
    with torch.no_grad():
        changed.model.classifier.bias += 1
    changed = dataclasses.replace(changed, info=changed.info.model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(MismatchError, match=r"teacher\.weights_sha256"):
        build(job_of(by=changed, **KEEP), whole)
    folder = shutil.copytree(tiny_teacher_dir, tmp_path / "cased")
    text = (folder / "tokenizer.json").read_text().replace('"lowercase": true', '"lowercase": false')
    (folder / "tokenizer.json").write_text(text)
    cased = dataclasses.replace(teacher, tokenizer=load_tokenizer(folder))
    with pytest.raises(MismatchError, match=r"tokenizer\.sha256"):
        build(job_of(by=cased, **KEEP), whole)
    assert touched(whole) == before


def test_a_foreign_folder_or_a_file_in_the_way_is_left_alone(job: Job, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")
    with pytest.raises(MismatchError, match="not a cache"):
        build(job, tmp_path)
    with pytest.raises(CacheError, match="File exists"):
        build(job, tmp_path / "thesis.txt")
    assert contents(tmp_path) == {"thesis.txt": sha256_hex(b"two years of work")}


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(job: Job, tmp_path: Path) -> None:
    sizes = {name: one._replace(row_bytes_N=one.row_bytes_N + (1 << 60)) for name, one in job.layout.sizes.items()}
    huge = dataclasses.replace(job, layout=dataclasses.replace(job.layout, sizes=sizes))
    with pytest.raises(CacheError, match=r"may need .* TB more and .* has .* free"):
        build(huge, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_device_without_memory_is_one_sentence(tiny_teacher_dir: Path, job_of: Any, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    job = job_of("1l_2t", by=load_teacher(str(tiny_teacher_dir), "cpu"))
    job.teacher.model.bert.encoder.layer[2].register_forward_pre_hook(full)
    with pytest.raises(
        TeacherError, match=r"cpu is out of memory for \d+ rows? of \d+ tokens; .*--token-budget below 40"
    ):
        build(job, tmp_path / "c")
