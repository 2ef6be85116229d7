"""A build in Python is the build of the same command."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from hskcache.build.request import AdditionRequest, BuildRequest, Texts, alone
from hskcache.build.requested import add_field, build
from hskcache.cli import main
from hskcache.errors import SpecError
from hskcache.spec import Hidden, Length, Spec
from hskcache.text.layout import Layout


def said(*args: object) -> str:
    result = CliRunner().invoke(main, [*map(str, args), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()[-1]


@pytest.fixture
def request_of(tiny_teacher_dir: Path, tsv_file: Path) -> BuildRequest:
    spec = Spec(hidden=Hidden(length=Length(tokens=3)), shard_rows=20)
    return BuildRequest(str(tiny_teacher_dir), Texts(str(tsv_file), Layout("sst2")), spec, "cpu", "skip")


def test_the_command_finds_what_python_has_built_and_added(request_of: BuildRequest, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    done = build(request_of, out)
    assert done.is_new
    # Nobody said how long rows may be: the task did.
    assert done.manifest.request.spec.max_length == 64
    teacher = ("--teacher", request_of.teacher)
    flags = ("--keep", "3t", "--shard-rows", 20, "--data", request_of.texts.data, "--task", "sst2")
    assert f"{out} is already complete" in said("build", "--out", out, *teacher, *flags)
    addition = AdditionRequest(request_of.teacher, out, "logits", "again", alone("logits"), "cpu")
    assert add_field(addition).is_new
    assert not add_field(addition).is_new
    assert "already has the field again" in said(
        "build", "--add-field", "logits", "--name", "again", "--out", out, *teacher
    )


def test_a_request_names_one_source_of_texts(request_of: BuildRequest) -> None:
    for texts, words in ((Texts(), "neither was"), (Texts("a.tsv", corpus=Path("b.txt")), "both were")):
        with pytest.raises(SpecError, match=f"give --data FILE .*, --corpus FILE .* or --chat FILE .*; {words} given"):
            dataclasses.replace(request_of, texts=texts)
