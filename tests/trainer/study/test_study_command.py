"""``hsktrain study``: cells by what decides them, finished ones never run again, and tables of what is cut off."""

import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from additions import Grown
from studying import AXIS, QUICK, facts_of, refused, study, weights_in
from tiny import MAX_LENGTH, cache_of, job_of, spec_of, weights_of

from hskcache.cache import Cache
from hskcache.spec import Depth, Hidden, Length, Width
from hskcache.studied import read_results
from trainer import FitRequest, fit
from trainer.recipe import load_recipe
from trainer.run.request import FromCache, Machine


@pytest.fixture(scope="module")
def asked(cache_dir: Path, narrow: Path, tsv_file: Path) -> tuple[object, ...]:
    """Words of every study here."""
    return ("--cache", cache_dir, "--student", narrow, "--eval-data", tsv_file, *QUICK)


@pytest.fixture(scope="module")
def studied(asked: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and answer of a study of two points and two seeds."""
    out = tmp_path_factory.mktemp("studied") / "out"
    return out, facts_of(*AXIS, *asked, "--seeds", 2, "--out", out)


def test_each_point_and_seed_is_a_run_that_results_tell_of(studied: tuple[Path, dict[str, Any]]) -> None:
    out, facts = studied
    assert [point["name"] for point in facts["points"]] == ["2l_9t", "1l_3t"]
    assert facts["labels"]["name"] == "labels alone"
    assert facts["baseline"] == "2l_9t"
    for point in [facts["labels"], *facts["points"]]:
        scores = []
        for seed, run in enumerate(point["scores"]):
            folder = out / "cells" / run["cell"]
            assert json.loads((folder / "run.json").read_text())["seed"] == run["seed"] == seed
            metrics = json.loads((folder / "metrics.json").read_text())
            scores.append(metrics["scores"]["accuracy"])
        assert [run["score"] for run in point["scores"]] == scores
        assert point["mean"] == pytest.approx(fmean(scores))
        assert point["interval_by"] == "seeds"
    base, narrow = facts["points"]
    assert base["difference"] is None
    differences = [one["score"] - other["score"] for one, other in zip(narrow["scores"], base["scores"], strict=True)]
    assert narrow["difference"]["mean"] == pytest.approx(fmean(differences))
    assert facts["labels"]["bytes_per_row"] == 0 < narrow["bytes_per_row"] < base["bytes_per_row"]
    assert read_results(out).model_dump(mode="json") == facts
    lines = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert len(lines) == 6
    assert {(line["view"], line["keep"]) for line in lines} == {("", "full"), ("2l_9t", "full"), ("1l_3t", "1l_3t")}
    assert (out / "study.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_another_study_has_finished_is_not_run_again(
    studied: tuple[Path, dict[str, Any]], asked: tuple[object, ...], tmp_path: Path
) -> None:
    """Another name, other axes, and one seed more; only what is new of it is run."""
    out, _ = studied
    before = weights_in(out / "cells")
    file = tmp_path / "further.yaml"
    file.write_text("name: further\naxes: {layers: [1], tokens: [3, 1]}\nlabels: false\nbaseline: 1l_3t\n")
    words = (file, *asked, "--out", tmp_path / "out", "--cells", out / "cells", "--seeds", 2)
    told = study(*words)
    assert told.exit_code == 0, told.stderr
    after = weights_in(out / "cells")
    assert after.items() >= before.items()
    assert len(after) == len(before) + 2
    assert "2 of 4 runs to do" in told.stderr
    again = read_results(tmp_path / "out")
    assert again.points[0].scores == read_results(out).points[1].scores
    assert "all 4 runs are done" in study(*words).stderr
    assert weights_in(out / "cells") == after


def test_a_student_of_a_point_is_that_of_a_cache_of_its_own(
    studied: tuple[Path, dict[str, Any]],
    tiny_teacher_dir: Path,
    tsv_file: Path,
    narrow: Path,
    tmp_path: Path,
) -> None:
    out, facts = studied
    hidden = Hidden(
        depth=Depth(student_layers=2, num_layers=1),
        length=Length(tokens=3),
        width=Width(scheme="magnitude", fraction=0.4),
        encoding="float32",
    )
    fresh: Cache = cache_of(job_of(tiny_teacher_dir, tsv_file, spec_of(hidden=hidden)), tmp_path / "fresh")
    assert fresh.manifest.request.spec.max_length == MAX_LENGTH
    recipe = load_recipe("mud", ["hidden.epochs=1", "prediction.epochs=1"])
    for run in facts["points"][1]["scores"]:
        request = FitRequest(FromCache(fresh.root), str(narrow), recipe, (str(tsv_file),), seed=run["seed"])
        fit(request, tmp_path / str(run["seed"]), Machine(device="cpu"))
        ours, theirs = (weights_of(folder) for folder in (out / "cells" / run["cell"], tmp_path / str(run["seed"])))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_remark_on_the_rows_is_made_once_not_by_every_run(asked: tuple[object, ...], tmp_path: Path) -> None:
    """Columns that are recalled, and texts in quotes, are told of by whatever reads the rows."""
    dev = tmp_path / "dev.tsv"
    dev.write_text('sentence\tlabel\n"the cast is ""warm"""\t1\nthe film is dull\t0\n', encoding="utf-8")
    words = (
        *AXIS,
        *asked,
        "--eval-data",
        dev,
        "--seeds",
        1,
        "--rows",
        40,
        "--out",
        tmp_path / "out",
        "--drop-students",
    )
    told = study(*words)
    assert told.exit_code == 0, told.stderr
    assert told.stderr.count("texts in quotes") + told.stderr.count("text in quotes") == 1
    assert len(list((tmp_path / "out" / "cells").glob("*/metrics.json"))) == 3


def test_the_cost_is_told_and_students_may_be_dropped(asked: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*AXIS, *asked, "--seeds", 1, "--no-labels", "--rows", 40, "--eval-rows", 20, "--out", out)
    cost = facts_of(*words, "--estimate")
    assert (cost["num_cells"], cost["num_all"]) == (2, 2)
    assert cost["seconds"] > 0 < cost["kept_bytes"] < cost["most_bytes"]
    assert not out.exists()
    facts = facts_of(*words, "--drop-students")
    assert (facts["num_rows"], facts["num_eval_rows"]) == (40, 20)
    assert weights_in(out / "cells") == {}
    assert len(list((out / "cells").glob("*/metrics.json"))) == 2
    assert study(*words, "--estimate").stdout == "all 2 runs are done\n"


def test_a_study_that_is_cut_off_has_a_table(
    asked: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt in the fourth of six runs: one seed is whole, and the same command goes on."""
    import trainer.study.run as room

    out, real, begun = tmp_path / "out", room.fit, []

    def fit(*words: Any, **more: Any) -> Any:
        begun.append(words)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return real(*words, **more)

    monkeypatch.setattr(room, "fit", fit)
    cut = study(*AXIS, *asked, "--seeds", 2, "--out", out)
    assert cut.exit_code == 130
    assert "goes on from the runs that are done" in cut.stderr
    results = read_results(out)
    assert results.num_left == 3
    assert [len(point.scores) for point in results.points] == [1, 1]
    assert {point.interval_by for point in results.points} == {"rows"}
    before = weights_in(out / "cells")
    done = study(*AXIS, *asked, "--seeds", 2, "--out", out)
    assert done.exit_code == 0
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0] == ["point", "bytes", "a", "row", "seeds", "accuracy", "to", "2l_9t"]
    assert any(line[:1] == ["1l_3t"] and "±" in line for line in table)
    assert weights_in(out / "cells").items() >= before.items()
    assert read_results(out).num_left == 0


def test_what_the_cache_cannot_serve_is_listed_before_the_first_run(asked: tuple[object, ...], tmp_path: Path) -> None:
    words = ("--axis", "view=1l_3t,5l_3t,1l_12t", *asked, "--out", tmp_path / "out", "--seeds", 1)
    told = refused(*words)
    assert "5l_3t: the view asks for 5 layers" in told
    assert "1l_12t: " in told
    assert "2 of 4 points of the study study cannot be run" in told
    assert not (tmp_path / "out").exists()
    kept = facts_of(*words, "--skip-missing", "--baseline", "1l_3t", "--no-labels")
    assert [point["name"] for point in kept["points"]] == ["1l_3t"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--axis", "vieww=1l"), "do you mean 'view'?"),
        (("--axis", "hiden.epochs=1,2"), "no stage 'hiden'"),
        (("--axis", "hidden.epoch=1,2"), "do you mean"),
        (("--axis", "recipe=mudd"), "do you mean 'mud'?"),
        (("--set", "hiden.epochs=1", *AXIS), "do you mean 'hidden'?"),
        (("--baseline", "1l_3", *AXIS), "do you mean '1l_3t'?"),
        (("widht",), "do you mean 'width'?"),
        ((), "give a study"),
        (("--axis", "view"), "not of the form NAME=VALUE"),
        (("--axis", "view=1l_1t,1l_1t"), "twice"),
        (("--axis", "tokens=x"), "'x' is not a number of tokens"),
    ],
)
def test_what_there_is_none_of_is_told(
    asked: tuple[object, ...], words: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    assert line in refused(*words, *asked, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fields_of_several_teachers_are_an_axis(grown: Grown, tmp_path: Path, narrow: Path, tsv_file: Path) -> None:
    """As the levels of a run of StarK are, which all keep as much."""
    words = ("--cache", grown.cache.root, "--student", narrow, "--eval-data", tsv_file, "--task", "sst2")
    words += ("--recipe", "logits", "--set", "prediction.epochs=1", "--device", "cpu", "--no-labels", "--seeds", 1)
    facts = facts_of("--axis", "field=logits,s30", *words, "--out", tmp_path / "out")
    assert [(point["name"], point["bytes_per_row"]) for point in facts["points"]] == [("logits", 8.0), ("s30", 8.0)]
    assert facts["baseline"] == "logits"
    cells = {point["scores"][0]["cell"] for point in facts["points"]}
    knowledge = {json.loads((tmp_path / "out/cells" / cell / "run.json").read_text())["knowledge"] for cell in cells}
    assert len(knowledge) == 2
    assert "do you mean 's30'" in refused("--axis", "field=logits,s3", *words, "--out", tmp_path / "other")


def test_flags_of_a_recipes_stage_say_what_to_give(asked: tuple[object, ...], tmp_path: Path) -> None:
    told = refused(*AXIS, *asked, "--out", tmp_path / "out", "--epochs", 3)
    assert "--set hidden.epochs=3 or --set prediction.epochs=3" in told


def test_a_folder_of_something_else_is_left_alone(
    studied: tuple[Path, dict[str, Any]], asked: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert "holds no study" in refused(*AXIS, *asked, "--out", tmp_path)
    file = tmp_path / "other.yaml"
    file.write_text("axes: {tokens: [1]}")
    assert "holds the study study, and this one is other" in refused(file, *asked, "--out", studied[0])
