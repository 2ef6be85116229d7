"""What the rows of a cache lost, and how they were read: told, kept in its manifest, and used by later commands."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.move.card import card
from hskcache.recall import of_cache
from hskcache.store.ledger import Ledger
from hskcache.text.remembered import Remembered, save
from hskcache.text.table import Columns

KEPT = ("--keep", "none", "--device", "cpu")
TASK = """
name: reviews
text: review
label: stars
problem: classification
labels: ["0", "1"]
metrics: [f1]
"""


@pytest.fixture(scope="session")
def reviews(tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews and stars, the first 30 rows as JSON lines, and a second text of every row."""
    rows = [line.split("\t") for line in tsv_file.read_text().splitlines()[1:31]]
    written = (json.dumps({"review": text, "reply": "old tale " * 9, "stars": stars}) for text, stars in rows)
    path = tmp_path_factory.mktemp("reviews") / "my reviews.jsonl"
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pairs(run: Any, tiny_teacher_dir: Path, reviews: Path, tmp_path: Path) -> Path:
    """A cache of pairs, cut to 12 tokens, in a folder whose name a shell would take apart."""
    columns = ("--text", "review", "--text-pair", "reply", "--label", "stars")
    out = tmp_path / "a cache"
    given = ("--teacher", tiny_teacher_dir, "--data", reviews, *columns, *KEPT, "--max-length", 12)
    result = run("build", *given, "--out", out)
    assert result.exit_code == 0
    assert "my reviews.jsonl: 30 of 30 rows lost" in result.stderr
    again = run("build", *given, "--out", out)
    assert "30 of 30 rows lost" in again.stderr
    assert "already complete" in again.stderr
    return out


def test_info_tells_columns_and_what_was_cut(pairs: Path, run: Any, data: Any) -> None:
    found = data("info", pairs)
    cut = found["cut"]
    assert found["data"]["provenance"]["columns"] == {
        "text": "review",
        "text_pair": "reply",
        "label": "stars",
        "header": None,
    }
    assert (cut["num_rows"], cut["num_whole_tokens"] - cut["num_tokens"]) == (30, 30 * 12)
    share = 100 * cut["num_tokens"] / cut["num_whole_tokens"]
    shown = run("info", pairs).stdout
    assert f"30 of 30 rows lost {share:.0f} % of their tokens; the longest had {cut['longest']}" in shown
    assert "review, reply, stars" in shown


def test_the_length_that_is_told_keeps_all(
    run: Any, data: Any, tiny_teacher_dir: Path, reviews: Path, tmp_path: Path
) -> None:
    given = ("--teacher", tiny_teacher_dir, "--data", reviews, "--text", "review", *KEPT)
    told = run("estimate", *given, "--max-length", 6).stderr
    longest = told.partition("--max-length ")[2].split()[0]
    assert "rows lost" in told
    for length, cut in ((int(longest), 0), (int(longest) - 1, 1)):
        out = tmp_path / str(length)
        assert ("rows lost" in run("build", *given, "--max-length", length, "--out", out).stderr) == bool(cut)
        assert bool(data("info", out)["cut"]["num_rows"]) == bool(cut)


def test_more_rows_need_no_columns(pairs: Path, run: Any, refused: Any, tiny_teacher_dir: Path, reviews: Path) -> None:
    more = pairs.with_name("more.jsonl")
    more.write_text("\n".join(reviews.read_text().splitlines()[:7]) + "\n", encoding="utf-8")
    given = ("append", pairs, "--teacher", tiny_teacher_dir, "--device", "cpu", "--data")
    single = refused(*given, more, "--text", "review", "--label", "stars")
    assert f"read as single texts, and the cache {pairs} is of pairs" in single
    result = run(*given, more)
    assert result.exit_code == 0, result.stderr
    assert f"columns as in the cache {pairs}: review, reply, stars" in result.stderr
    assert "7 of 7 rows lost" in result.stderr
    assert "7 rows appended, 37 in all" in result.stderr
    other = pairs.with_name("other.jsonl")
    other.write_text('{"review": "the film", "stars": "1"}\n', encoding="utf-8")
    assert "no key 'reply'" in (line := refused(*given, other))
    assert f"the columns are those of the cache {pairs}" in line


def test_the_command_that_is_advised_runs_as_it_stands(pairs: Path, run: Any) -> None:
    shard_file(pairs, "logits", 0).write_bytes(b"")
    advised = run("repair", pairs)
    assert advised.exit_code == 1, advised.output
    _, _, command = advised.stdout.partition("compute it again: ")
    name, *words = shlex.split(command.splitlines()[0])
    assert name == "hskcache"
    assert "--text-pair" in words
    result = run(*words, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "whole, id" in result.stderr
    for path in (pairs / "logits").glob("*.zarr.zip"):
        path.unlink()
    given = [word for word in words if word not in {"--text", "review", "--text-pair", "reply", "--label", "stars"}]
    assert run(*given, "--device", "cpu").exit_code == 0


def test_a_task_of_ones_own_is_kept_and_not_its_path(
    run: Any, data: Any, tiny_teacher_dir: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = ("--teacher", tiny_teacher_dir, "--data", reviews, "--task", "task.yaml", *KEPT)
    assert run("build", *given, "--out", "c").exit_code == 0
    (tmp_path / "task.yaml").unlink()
    kept = data("info", "c")["data"]
    assert (kept["task"], kept["provenance"]["task"]["metrics"]) == ("reviews", ["f1"])
    result = run("append", "c", "--teacher", tiny_teacher_dir, "--data", reviews, "--again", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    # Another teacher's classes are compared by the task, too.
    added = ("build", "--add-field", "logits", "--name", "again", "--teacher", tiny_teacher_dir, "--out", "c")
    assert run(*added, "--device", "cpu").exit_code == 0


def test_a_teacher_tells_columns_and_length(
    run: Any, refused: Any, data: Any, tiny_teacher_dir: Path, reviews: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "t"))
    save(Remembered("", columns=Columns("review", "reply", "stars"), is_pairs=True, max_length=20), teacher)
    given = ("--teacher", teacher, "--data", reviews, *KEPT)
    result = run("build", *given, "--out", tmp_path / "c")
    assert result.exit_code == 0
    assert f"rows of at most 20 tokens, as in the model {teacher}; --max-length says otherwise" in result.stderr
    assert f"columns as in the model {teacher}: review, reply, stars" in result.stderr
    assert "--max-length says otherwise" in run("estimate", *given).stderr
    assert data("info", tmp_path / "c")["spec"]["max_length"] == 20
    own = run("build", *given, "--max-length", 30, "--out", tmp_path / "d")
    assert "otherwise" not in own.stderr
    spec = tmp_path / "s.yaml"
    spec.write_text("hidden: null\n", encoding="utf-8")
    assert run("build", "--teacher", teacher, "--data", reviews, "--spec", spec, "--out", tmp_path / "e").exit_code == 0
    assert data("info", tmp_path / "e")["spec"]["max_length"] == 128
    single = refused("build", *given, "--text", "review", "--label", "stars", "--out", tmp_path / "f")
    assert "read as single texts" in single
    assert not (tmp_path / "f").exists()


def test_a_task_tells_the_length_and_what_was_begun_keeps_its_own(
    run: Any, data: Any, refused: Any, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    given = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", *KEPT)
    told = "rows of at most 64 tokens, as in the task sst2; --max-length says otherwise"
    assert told in run("estimate", *given).stderr
    assert told in run("build", *given, "--out", tmp_path / "new").stderr
    assert data("info", tmp_path / "new")["spec"]["max_length"] == 64
    # As a version built it that knew no lengths of tasks.
    old, begun = tmp_path / "old", tmp_path / "begun"
    assert run("build", *given, "--max-length", 128, "--out", old).exit_code == 0
    assert "already complete" in run("build", *given, "--out", old).stderr
    Ledger(begun).begin(open_cache(old).manifest.request)
    assert run("build", *given, "--out", begun).exit_code == 0
    assert data("info", begun)["spec"]["max_length"] == 128
    assert open_cache(begun).manifest.request == open_cache(old).manifest.request
    assert "spec.max_length = 128" in refused("build", *given, "--max-length", 64, "--out", old)


def test_a_part_of_a_cache_does_not_tell_what_all_rows_lost(pairs: Path) -> None:
    request = open_cache(pairs).manifest.request
    some = request.between(0, 30).data, request.data.of_some(range(10))
    assert [one.provenance.cut.num_rows for one in some if one.provenance is not None] == [30, 0]
    assert of_cache("it", request).columns == Columns("review", "reply", "stars")


@pytest.mark.parametrize("columns", [("--task", "sst2"), ("--text", "sentence", "--label", "label")])
def test_the_card_names_the_columns(
    run: Any, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path, columns: tuple[str, ...]
) -> None:
    given = ("--teacher", tiny_teacher_dir, "--data", tsv_file, *columns, *KEPT)
    assert run("build", *given, "--out", tmp_path / "c").exit_code == 0
    text = card(open_cache(tmp_path / "c").manifest, "s3://a bucket/my c.hsk").decode()
    line = next(line for line in text.splitlines() if line.startswith("hsktrain fit"))
    assert shlex.split(line)[:5] == ["hsktrain", "fit", "--cache", "my c.hsk", "--student"]
    assert shlex.join(["--eval-data", "dev.tsv", *columns]) in line
    assert "--recipe logits" in line
    assert "hskcache pull 's3://a bucket/my c.hsk' 'my c.hsk'" in text
