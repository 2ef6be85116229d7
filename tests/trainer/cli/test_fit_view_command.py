"""``hsktrain fit --view`` and ``hskcache info --view`` as a user types them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file, weights_of

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

SETTINGS = ["--set", "hidden.epochs=1", "--set", "prediction.epochs=1"]
BUILD = ["--task", "sst2", "--max-length", "24", "--shard-rows", "8", "--encoding", "float32", "--device", "cpu"]


def invoke(main: Any, *args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


@pytest.fixture(scope="module")
def caches(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wide cache and one that was built as a view of it sees it."""
    folder = tmp_path_factory.mktemp("caches")
    for name, keep in (("wide", "24t"), ("narrow", "1l_5t_0.3h")):
        given = ["--teacher", tiny_teacher_dir, "--data", tsv_file, "--student-layers", 2, "--keep", keep]
        assert invoke(hskcache, "build", *given, *BUILD, "--out", folder / name).exit_code == 0
    return {name: folder / name for name in ("wide", "narrow")}


@pytest.fixture
def fit(caches: dict[str, Path], tsv_file: Path, tmp_path: Path) -> Callable[..., Result]:
    student = config_file(tmp_path / "student", width=16)

    def run(cache: str, out: str, *args: object) -> Result:
        given = ["--cache", caches[cache], "--student", student, "--eval-data", tsv_file, "--device", "cpu"]
        return invoke(hsktrain, "fit", *given, *SETTINGS, *args, "--out", tmp_path / out)

    return run


def test_a_student_of_a_view_is_that_of_a_cache_that_was_built_so(fit: Callable[..., Result], tmp_path: Path) -> None:
    results = [fit("wide", "view", "--view", "1l_5t_0.3h", "--json"), fit("narrow", "built", "--json")]
    assert [result.exit_code for result in results] == [0, 0], results[0].stderr
    view, built = (json.loads(result.stdout) for result in results)
    assert [stage["losses"] for stage in view["stages"]] == [stage["losses"] for stage in built["stages"]]
    ours, theirs = weights_of(tmp_path / "view"), weights_of(tmp_path / "built")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_view_is_kept_and_a_run_of_another_is_refused(fit: Callable[..., Result], tmp_path: Path) -> None:
    assert fit("wide", "out", "--view", "1l_5t").exit_code == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cache_view"] == "1l_5t"
    assert "is finished already" in fit("wide", "out", "--view", "1l_5t").stderr
    other = fit("wide", "out", "--view", "1l_4t")
    assert other.exit_code == 2
    assert "holds a run with cache_view '1l_5t' and this one has '1l_4t'" in other.stderr
    assert fit("wide", "out").exit_code == 2
    assert fit("wide", "all", "--view", "full").exit_code == 0
    assert "is finished already" in fit("wide", "all").stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--cache", "wide", "--view", "4l"], "layer"),
        (["--cache", "wide", "--view", "1x"], "the view '1x' is not of the form"),
        (["--cache", "wide", "--view", "fields=logits"], "learns from hidden states, and .* keeps none"),
        (["--teacher", "none", "--view", "1l"], "--view belongs to --cache; with --teacher give a --spec"),
    ],
)
def test_a_view_that_is_none_is_refused_before_anything_is_written(
    args: list[str], message: str, caches: dict[str, Path], tsv_file: Path, tmp_path: Path
) -> None:
    given = [caches.get(arg, arg) for arg in args]
    student = config_file(tmp_path / "student", width=16)
    result = invoke(hsktrain, "fit", *given, "--student", student, "--eval-data", tsv_file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert re.search(message, result.stderr)


def test_info_tells_of_a_view_what_a_build_of_it_would_be(caches: dict[str, Path]) -> None:
    result = invoke(hskcache, "info", caches["wide"], "--view", "1l_5t_0.3h", "--json")
    assert result.exit_code == 0
    view = json.loads(result.stdout)
    built = json.loads(invoke(hskcache, "info", caches["narrow"], "--json").stdout)
    for key in ("keep", "layers", "spec", "num_rows", "num_shards", "data", "agreement"):
        assert view[key] == built[key], key
    for part in ("layers", "max_tokens", "num_columns", "columns"):
        assert view["fields"]["hidden"][part] == built["fields"]["hidden"][part]
    assert (view["view"], built["view"]) == ("1l_5t_0.3h", None)
    assert view["cache_id"] != built["cache_id"]
    table = invoke(hskcache, "info", caches["wide"], "--view", "1l_5t_0.3h")
    assert "1l_5t_0.3h  (bytes are those that it is read from)" in table.stdout
    spec = invoke(hskcache, "info", caches["wide"], "--view", "1l_5t_0.3h", "--spec").stdout
    assert spec == invoke(hskcache, "info", caches["narrow"], "--spec").stdout
    refused = invoke(hskcache, "info", caches["wide"], "--view", "25t")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
