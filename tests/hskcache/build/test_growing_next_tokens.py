"""Caches of next tokens grow as others do: appended, added to by another teacher, cut off, shared and estimated."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanded import parsed, refused, run
from folders import contents
from forked import in_child
from language_models import language_model

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from trainer.cli import main as hsktrain

TEXTS = [f"Text {one} says {'very ' * (one % 5)}little of {one * 37}." for one in range(18)]
FORMS = ("top:6", "sampled:9", "head")
SOME = ("--keep", "0.3t", "--score", "entropy")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("teacher") / "llama", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("other") / "llama", initializer_range=0.3, num_hidden_layers=2)


def texts(path: Path, some: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts(tmp_path_factory.mktemp("texts") / "texts.jsonl", TEXTS)


def command(teacher: Path, corpus: Path, *options: object) -> tuple[object, ...]:
    given = ("--teacher", teacher, "--corpus", corpus, "--max-length", 32, "--device", "cpu", "--token-budget", 128)
    return ("build", *given, *options)


def built(teacher: Path, corpus: Path, out: Path, *options: object) -> Cache:
    result = run(*command(teacher, corpus, "--shard-rows", 6, *options), "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


def arrays_of(cache: Cache, name: str = "vocabulary") -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of all rows of a field, one row after the other; the positions that each row has by their number."""
    shards = [cache.read(name, shard) for shard in range(len(cache.shards))]
    counts = {"counts": np.concatenate([np.diff(one.pop("position_offsets")) for one in shards])}
    return counts | {part: np.concatenate([one[part] for one in shards]) for part in shards[0]}


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_are_appended_have_what_they_would_have_had(
    form: str, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    first, more = texts(tmp_path / "first.jsonl", TEXTS[:7]), texts(tmp_path / "more.jsonl", TEXTS[7:])
    whole = built(teacher, corpus, tmp_path / "whole", "--vocabulary", form, *SOME)
    grown = built(teacher, first, tmp_path / "grown", "--vocabulary", form, *SOME)
    result = run("append", grown.root, "--teacher", teacher, "--corpus", more, "--device", "cpu")
    assert result.exit_code == 0, result.output
    grown = open_cache(grown.root)
    assert grown.num_rows == whole.num_rows
    ours, theirs = arrays_of(grown), arrays_of(whole)
    for name in ("counts", "positions", *({"ids", "gaps"} & ours.keys())):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_allclose(ours["gold"], theirs["gold"], rtol=2e-3)
    assert parsed("verify", grown.root, "--deep")["ok"]
    assert parsed("audit", grown.root, "--teacher", teacher, "--device", "cpu", "--rows", 9)["ok"]


def test_another_teachers_next_tokens_are_added_at_positions_of_its_own(
    teacher: Path, other: Path, corpus: Path, tmp_path: Path
) -> None:
    cache = built(teacher, corpus, tmp_path / "c", "--vocabulary", "top:6", *SOME)
    add = ("build", "--add-field", "vocabulary", "--teacher", other, "--device", "cpu", "--out", cache.root)
    result = run(*add, "--name", "second", "--vocabulary", "sampled:9", "--keep", "0.5t", "--score", "loss")
    assert result.exit_code == 0, result.output
    assert run(*add, "--name", "third", "--vocabulary", "top:4").exit_code == 0
    cache = open_cache(cache.root)
    alone = built(other, corpus, tmp_path / "alone", "--vocabulary", "sampled:9", "--keep", "0.5t", "--score", "loss")
    ours, theirs = arrays_of(cache, "second"), arrays_of(alone)
    for name in ("counts", "positions", "gaps"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert parsed("verify", cache.root, "--deep")["ok"]
    assert arrays_of(cache, "third")["counts"].sum() > ours["counts"].sum() > arrays_of(cache)["counts"].sum()
    report = parsed("audit", cache.root, "--teacher", other, "--field", "second", "--device", "cpu", "--rows", 9)
    assert report["ok"]
    seen = run("view", cache.root, 3).stdout
    assert re.search(r"kept +second kept", seen), seen
    # A view of fewer positions is one of every field whose positions are ranked.
    with pytest.raises(MismatchError, match="next tokens are stored at every position"):
        cache.view("0.1t")
    narrow = cache.view("0.1t,fields=vocabulary+second")
    assert arrays_of(narrow, "second")["counts"].sum() < ours["counts"].sum()


def test_one_teacher_of_several_is_learned_from_and_an_average_is_refused(
    teacher: Path, other: Path, corpus: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    cache = built(teacher, corpus, tmp_path / "c", "--vocabulary", "top:6", *SOME)
    add = ("build", "--add-field", "vocabulary", "--teacher", other, "--device", "cpu", "--out", cache.root)
    assert run(*add, "--name", "second", "--vocabulary", "top:6", *SOME).exit_code == 0
    words = ["fit", "--cache", cache.root, "--student", teacher / "config.json", "--recipe", "lm", "--device", "cpu"]
    words += ["--set", "prediction.select=last", "--set", "prediction.epochs=1"]
    words += ["--set", "prediction.batch_size=6"]

    def fit(*fields: object) -> Any:
        given = [word for field in fields for word in ("--field", field)]
        return CliRunner().invoke(hsktrain, [str(one) for one in (*words, *given, "--out", tmp_path / str(fields))])

    assert fit("second").exit_code == 0
    assert fit().exit_code == 0
    ours, theirs = ((tmp_path / str(one) / "model.safetensors").read_bytes() for one in ((), ("second",)))
    assert ours != theirs
    both = fit("vocabulary", "second")
    assert both.exit_code == 2
    assert "both hold next tokens, which are not averaged; choose one" in both.stderr.replace("\n", " ")
    weighted = fit("second=0.5")
    assert weighted.exit_code == 2
    assert "have no weight" in weighted.stderr


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_a_build_come_to_the_whole(form: str, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", form, "--keep", "1l_0.3t", "--student-layers", 2, "--score", "entropy")
    whole, parts = built(teacher, corpus, tmp_path / "whole", *given), tmp_path / "parts"
    for number in (3, 1, 2):
        assert not (parts / "manifest.json").exists()
        words = command(teacher, corpus, "--shard-rows", 6, *given, "--part", f"{number}/3")
        assert run(*words, "--out", parts).exit_code == 0
    assert contents(parts) == contents(whole.root)


@pytest.mark.parametrize("moment", [1, 3, 5])
@pytest.mark.parametrize("form", ["top:6", "head"])
def test_a_build_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    form: str, moment: int, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    given = ("--vocabulary", form, "--keep", "1l_0.3t", "--student-layers", 2, "--score", "entropy")
    whole = built(teacher, corpus, tmp_path / "whole", *given)
    out, commits = tmp_path / "cut", []

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and re.search(r"/vocabulary/[0-9]+\.json$", str(arguments[1])):
            commits.append(event)
            if len(commits) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: built(teacher, corpus, out, *given), count) == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    built(teacher, corpus, out, *given)
    assert contents(out) == contents(whole.root)


def test_a_field_that_is_cut_off_goes_on(teacher: Path, other: Path, corpus: Path, tmp_path: Path) -> None:
    cache = built(teacher, corpus, tmp_path / "c", "--vocabulary", "top:6")
    twin = Path(shutil.copytree(cache.root, tmp_path / "twin"))
    add = ("build", "--add-field", "vocabulary", "--teacher", other, "--device", "cpu", "--vocabulary", "top:4", *SOME)

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and re.search(r"/second/[0-9]+2\.json$", str(arguments[1])):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: run(*add, "--name", "second", "--out", twin), kill) == -signal.SIGKILL
    for root in (cache.root, twin):
        assert run(*add, "--name", "second", "--out", root).exit_code == 0
    assert contents(twin) == contents(cache.root)


@pytest.mark.parametrize("keep", [(), SOME, ("--keep", "5t", "--score", "last")])
@pytest.mark.parametrize("form", FORMS)
def test_the_most_bytes_of_an_estimate_are_those_of_the_arrays(
    form: str, keep: tuple[str, ...], teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    cache = built(teacher, corpus, tmp_path / "c", "--vocabulary", form, *keep)
    facts = parsed("estimate", *command(teacher, corpus, "--shard-rows", 6, "--vocabulary", form, *keep)[1:])
    records = cache.manifest.shards["vocabulary"]
    exact = sum(info.memory_bytes for record in records for info in record.arrays.values())
    constants = cache.manifest.constants.get("vocabulary")
    num_arrays = sum(len(record.arrays) for record in records)
    shared = 0 if constants is None else sum(info.memory_bytes for info in constants.arrays.values())
    beside = 2048 * (num_arrays + (0 if constants is None else 2 * len(constants.arrays)))
    assert facts["most_bytes"]["vocabulary"] == exact + shared + beside
    assert facts["num_bytes"]["vocabulary"] == pytest.approx(cache.num_bytes("vocabulary"), rel=0.25)


def test_a_plan_is_of_positions_and_takes_what_an_estimate_says(teacher: Path, corpus: Path) -> None:
    given = command(teacher, corpus, "--vocabulary", "top:6")[1:]
    all_bytes = sum(parsed("estimate", *given)["num_bytes"].values())
    budget = all_bytes * 2 // 3
    plan = parsed("plan", *given, "--budget", budget)
    words = plan["chosen"]["options"]
    assert re.fullmatch(r"--keep \d+t --score entropy", " ".join(words))
    assert parsed("estimate", *given, *words)["num_bytes"] == plan["chosen"]["by_field"]
    assert plan["chosen"]["num_bytes"] <= budget
    assert parsed("plan", *given, "--budget", all_bytes * 2)["chosen"]["options"] == ["--keep", "none"]
    with_states = parsed("plan", *given, "--score", "random", "--student-layers", 2, "--budget", all_bytes * 2)
    chosen = [*with_states["chosen"]["options"], "--score", "random", "--student-layers", "2"]
    assert parsed("estimate", *given, *chosen)["num_bytes"] == with_states["chosen"]["by_field"]
    assert "is less than a cache of these rows takes at least" in refused("plan", *given, "--budget", 100)


def test_it_travels_and_is_told_apart(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    cache = built(teacher, corpus, tmp_path / "c", "--vocabulary", "top:6", *SOME)
    assert run("push", cache.root, f"file://{tmp_path / 'far'}").exit_code == 0
    assert run("pull", f"file://{tmp_path / 'far'}", tmp_path / "near").exit_code == 0
    assert open_cache(tmp_path / "near").id == cache.id
    last = built(teacher, corpus, tmp_path / "last", "--vocabulary", "top:6", "--keep", "0.3t", "--score", "last")
    result = run("diff", cache.root, last.root)
    assert result.exit_code == 1
    assert parsed("diff", cache.root, tmp_path / "near")
    told = refused("export", cache.root, tmp_path / "drafts", "--as", "speculators", "--teacher", teacher)
    assert "has the hidden layers none" in told
    given = ("--keep", "0.3t", "--store-layers", "1,4", "--score", "entropy")
    states = built(teacher, corpus, tmp_path / "states", *given)
    told = refused("export", states.root, tmp_path / "drafts", "--as", "speculators", "--teacher", teacher)
    assert "keeps some positions or columns of each hidden state, and a draft model learns from whole ones" in told
