"""Results of a study as others read them."""

import json
from pathlib import Path

import pytest

from hskcache.errors import DamageError, MismatchError
from hskcache.studied import RESULTS, PairedDifference, SeedScore, StudyPoint, StudyResults, read_results


def point(name: str, strategy: str, num_bytes: float, *scores: float) -> StudyPoint:
    """A point with a score a seed."""
    runs = [SeedScore(seed=seed, score=score, cell=f"{name}-{seed}") for seed, score in enumerate(scores)]
    return StudyPoint(
        name=name,
        axes={"view": name},
        strategy=strategy,
        keep=name,
        encoding="int8",
        bytes_per_row=num_bytes,
        scores=runs,
        mean=sum(scores) / len(scores) if scores else None,
        interval=0.01 if len(scores) > 1 else None,
        interval_by="seeds" if len(scores) > 1 else None,
        difference=PairedDifference(mean=-0.1, interval=None, num_seeds=1) if scores else None,
    )


RESULTS_OF_TWO = StudyResults(
    name="length",
    cache="ab" * 32,
    num_rows=96,
    metric="accuracy",
    num_eval_rows=32,
    teacher=0.9,
    labels=point("labels", "labels alone", 0.0, 0.6),
    baseline="5t",
    seeds=[0, 1],
    points=[point("5t", "attention", 90.5, 0.8, 0.9), point("1t", "attention", 20.0, 0.7), point("9t", "left", 100.0)],
)


def write(folder: Path, text: str) -> Path:
    (folder / RESULTS).write_text(text, encoding="utf-8")
    return folder


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    read = read_results(write(tmp_path, RESULTS_OF_TWO.model_dump_json()))
    assert read == RESULTS_OF_TWO
    # One run of 1t, two of 9t and one of the labels are left.
    assert read.num_left == 4
    assert {name: [one.name for one in some] for name, some in read.strategies.items()} == {
        "attention": ["1t", "5t"],
        "left": ["9t"],
    }


def test_what_is_no_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="holds no study"):
        read_results(tmp_path)
    with pytest.raises(MismatchError, match="is not of a study"):
        read_results(write(tmp_path, '{"metric": "accuracy", "rows": []}'))
    with pytest.raises(MismatchError, match="is not of a study"):
        read_results(write(tmp_path, "not JSON"))
    newer = json.loads(RESULTS_OF_TWO.model_dump_json()) | {"version": 2, "further": 1}
    with pytest.raises(MismatchError, match="version 2, and this program reads up to 1"):
        read_results(write(tmp_path, json.dumps(newer)))
    without = {key: value for key, value in json.loads(RESULTS_OF_TWO.model_dump_json()).items() if key != "points"}
    with pytest.raises(DamageError, match=r"is damaged: points: Field required"):
        read_results(write(tmp_path, json.dumps(without)))
