"""What plan proposes fits, takes what estimate says, and is the most that fits in its order."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from commanded import parsed, refused, run

from hskcache.plan.frontier import candidates, frontier
from hskcache.plan.ladder import ladder, last_that_fits
from hskcache.plan.sizes import KeepChoice
from hskcache.spec import Hidden, Keep, Length, Width
from hskcache.studied import StudyPoint, StudyResults

Words = tuple[object, ...]


@pytest.fixture(scope="module")
def build(tiny_teacher_dir: Path, tsv_file: Path) -> Words:
    words = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--device", "cpu")
    return (*words, "--student-layers", "2", "--max-length", "48")


def estimated(build: Words, *kept: object) -> int:
    return sum(parsed("estimate", *build, *kept)["num_bytes"].values())


def test_the_proposal_takes_what_estimate_says_and_the_next_step_is_too_much(build: Words) -> None:
    found = parsed("plan", *build, "--budget", "12kB", "--encoding", "int8")
    chosen = found["chosen"]
    words = ("--keep", chosen["keep"], "--encoding", "int8")
    assert chosen["num_bytes"] == estimated(build, *words) <= 12_000
    steps = ladder(Hidden(), 3, 20)
    keeps = [KeepChoice(step, "int8").words for step in steps]
    following = keeps[keeps.index(chosen["keep"]) + 1]
    assert estimated(build, "--keep", following, "--encoding", "int8") > 12_000
    assert found["by"] == "order"
    assert sum(chosen["by_field"].values()) == chosen["num_bytes"]


def test_bytes_of_a_row_are_those_of_the_cache_by_its_rows(build: Words) -> None:
    by_row = parsed("plan", *build, "--bytes-per-row", 125, "--encoding", "int8")
    assert by_row["budget_bytes"] == 96 * 125
    assert by_row["chosen"] == parsed("plan", *build, "--budget", "12kB", "--encoding", "int8")["chosen"]


def test_where_no_encoding_is_given_two_are_compared(build: Words) -> None:
    found = parsed("plan", *build, "--budget", "20kB")
    assert [one["encoding"] for one in found["choices"]] == ["int8", "int4"]
    assert all(one["fits"] for one in found["choices"])
    assert found["chosen"] == found["choices"][0]


def test_all_of_it_is_proposed_where_all_fits(build: Words) -> None:
    assert parsed("plan", *build, "--budget", "1GB", "--encoding", "int8")["chosen"]["keep"] == "full"


@pytest.mark.parametrize("flag", ["--budget", "--bytes-per-row"])
def test_a_budget_below_the_logits_is_refused_with_the_least_that_works(flag: str, build: Words) -> None:
    told = refused("plan", *build, flag, 9)
    assert "--keep none" in told
    least = re.search(rf"give {flag} (\d+) or more", told)
    assert least is not None
    chosen = parsed("plan", *build, flag, least[1])["chosen"]
    assert (chosen["keep"], chosen["encoding"]) == ("none", None)
    # Nothing is said of hidden states, of which there are none.
    plain = tuple(word for word in build if word not in {"--student-layers", "2"})
    assert chosen["num_bytes"] == estimated(plain, "--keep", "none")
    assert "is less than" in refused("plan", *build, flag, int(least[1]) - 1)


def test_a_corpus_has_one_token_at_least(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the film is dull\nthis movie is warm\n\n" * 40)
    words = ("--teacher", tiny_teacher_dir, "--corpus", corpus, "--pairs", "none", "--device", "cpu")
    told = refused("plan", *words, "--max-length", 16, "--budget", 9)
    assert "--keep 1l_1t_0.1h" in told
    assert (
        parsed("plan", *words, "--max-length", 16, "--budget", "1MB", "--encoding", "int8")["chosen"]["keep"] == "full"
    )


def test_attention_that_is_asked_for_is_kept_beside(build: Words) -> None:
    found = parsed("plan", *build, "--attention", "1l_2t", "--budget", "40kB", "--encoding", "int8")
    assert set(found["chosen"]["by_field"]) == {"inputs", "logits", "hidden", "attention"}


def test_words_for_people_can_be_given_to_build(build: Words, tmp_path: Path) -> None:
    result = run("plan", *build, "--budget", "12kB", "--encoding", "int8")
    options = re.search(r"^proposed +(.*)$", result.stdout, re.MULTILINE)
    assert options is not None
    assert run("build", *build, *options[1].split(), "--out", tmp_path / "c").exit_code == 0
    assert sum(field["num_bytes"] for field in parsed("info", tmp_path / "c")["fields"].values()) < 1.2 * 12_000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "--budget 500MB for the whole cache, or as --bytes-per-row"),
        (("--budget", "1MB", "--bytes-per-row", 5), "--budget 500MB for the whole cache, or as --bytes-per-row"),
        (("--budget", "much"), "'much' is not a size"),
        (("--budget", "1MB", "--keep", "1l"), "is what plan proposes"),
        (("--budget", "1MB", "--study", "nowhere"), "holds no study"),
    ],
)
def test_what_makes_no_plan_is_refused(given: Words, told: str, build: Words) -> None:
    assert told in refused("plan", *build, *given)


def point(keep: str, num_bytes: float, mean: float | None, **given: object) -> StudyPoint:
    values = {"name": f"{keep} {mean}", "axes": {"view": keep}, "strategy": "", "encoding": "int8", "scores": []}
    sizes = {"bytes_per_row": num_bytes, "mean": mean, "interval": None, "interval_by": None}
    return StudyPoint.model_validate({**values, "keep": keep, **sizes, **given})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    points = [
        point("none", 8.0, 0.70, encoding=None, axes={}),
        point("1l_2t_0.25h", 40.0, 0.78),
        point("1l_2t_0.5h", 60.0, 0.77),
        point("1t", 200.0, 0.80),
        point("full", 600.0, 0.85),
        point("1l_3t_0.5h,score=left,specials=no,encoding=int4", 300.0, 0.82, encoding="int4"),
        point("1l_2t,attention=1l", 90.0, 0.9),
        point("4t", 90.0, 0.9, axes={"field": "other"}),
        point("3t", 100.0, None),
    ]
    results = StudyResults(
        name="s",
        cache="0" * 64,
        cache_keep="2l_8t",
        num_rows=96,
        metric="accuracy",
        num_eval_rows=50,
        seeds=[0],
        points=points,
    )
    (tmp_path / "results.json").write_text(results.model_dump_json())
    return tmp_path


def test_points_of_a_study_become_what_build_is_asked_for(study: Path) -> None:
    results = StudyResults.model_validate_json((study / "results.json").read_text())
    found, num_left_out = candidates(results)
    assert [one.kept.words for one in found] == ["none", "1l_2t_0.25h", "1l_2t_0.5h", "2l_1t", "2l_8t", "1l_3t_0.5h"]
    assert found[-1].kept.options == ["--keep", "1l_3t_0.5h", "--encoding", "int4", "--score", "left", "--no-specials"]
    assert num_left_out == 2
    assert [one.kept.words for one in frontier(found)] == ["none", "1l_2t_0.25h", "2l_1t", "1l_3t_0.5h", "2l_8t"]


def test_the_best_point_that_fits_is_proposed_with_what_more_bytes_bring(build: Words, study: Path) -> None:
    found = parsed("plan", *build, "--budget", "15kB", "--study", study)
    assert (found["by"], found["metric"], found["num_left_out"]) == ("study", "accuracy", 2)
    choices = found["choices"]
    assert [one["score"] for one in choices] == [0.70, 0.78, 0.80, 0.82, 0.85]
    assert found["chosen"] == [one for one in choices if one["fits"]][-1]
    assert not choices[-1]["fits"]
    assert choices[1]["num_bytes"] == estimated(build, "--keep", "1l_2t_0.25h", "--encoding", "int8")
    assert choices[3]["num_bytes"] == estimated(build, *choices[3]["options"])
    more = choices[1]["bytes_per_row"] - choices[0]["bytes_per_row"]
    assert choices[1]["gain"] == pytest.approx(100 * 0.08 / more)


def test_where_no_point_fits_it_goes_by_the_order_and_says_so(build: Words, tmp_path: Path) -> None:
    results = StudyResults(
        name="s",
        cache="0" * 64,
        num_rows=96,
        metric="accuracy",
        num_eval_rows=50,
        seeds=[0],
        points=[point("full", 600.0, 0.85)],
    )
    (tmp_path / "results.json").write_text(results.model_dump_json())
    result = run("plan", *build, "--budget", "12kB", "--study", tmp_path)
    assert result.exit_code == 0
    assert "no point of the study" in result.stderr


def test_every_step_of_the_ladder_holds_the_one_before() -> None:
    steps = ladder(Hidden(), 3, 12)
    assert (steps[0], steps[-1]) == (Keep(1, 1, 0.1), Keep(None, None, 1.0))
    assert len(set(steps)) == len(steps)

    def size(step: Keep) -> tuple[int, int, float]:
        return step.layers or 3, step.tokens or 12, step.fraction

    for before, after in pairwise(steps):
        assert all(here <= there for here, there in zip(size(before), size(after), strict=True))
    assert ladder(Hidden(length=Length(score="all")), 1, 12)[0].tokens is None
    assert {step.tokens for step in ladder(Hidden(length=Length(score="cls")), 2, 12)} == {1}
    assert {step.fraction for step in ladder(Hidden(width=Width(scheme="all")), 2, 12)} == {1.0}


@pytest.mark.parametrize("error", [0, -3, 5, 100, -100])
@pytest.mark.parametrize("most", range(-1, 33))
def test_the_last_step_that_fits_is_found_however_wrong_the_guess_is(most: int, error: int) -> None:
    asked: list[int] = []

    def fits(step: int) -> bool:
        asked.append(step)
        return step <= most

    place = last_that_fits(range(32), fits, lambda step: step <= most + error)
    assert place == (None if most < 0 else min(most, 31))
    assert len(set(asked)) <= (2 if error == 0 else 11)
