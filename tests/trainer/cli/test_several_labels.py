"""A model of several labels or scores at once is refused by every command that would take it for one of one class."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import job_of, spec_of

from hskcache.build.build import build
from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain


@pytest.fixture(scope="module", params=["multi_label_classification", "regression"])
def problem_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def toxic(problem_type: str, tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher, said to give several labels at once, or several scores."""
    folder = Path(shutil.copytree(tiny_teacher_dir, tmp_path_factory.mktemp("several") / "toxic"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": problem_type}))
    return folder


@pytest.fixture(scope="module")
def old_cache(toxic: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of it as they were built before it was refused."""
    out = tmp_path_factory.mktemp("old") / "c.hsk"
    build(job_of(toxic, tsv_file, spec_of(hidden=None)), out)
    return out


def run(command: Sequence[object]) -> tuple[int, str]:
    program, *args = command
    result = CliRunner().invoke({"hskcache": hskcache, "hsktrain": hsktrain}[str(program)], list(map(str, args)))
    return result.exit_code, result.stderr


COMMANDS = {
    "build": "hskcache build --teacher {toxic} --task sst2 --data {rows} --keep none --out {out}",
    "build without labels": "hskcache build --teacher {toxic} --text 0 --data {rows} --keep none --out {out}",
    "add-field": "hskcache build --teacher {toxic} --add-field logits --name more --out {cache}",
    "sparsify": "hskcache sparsify --teacher {toxic} --task sst2 --data {rows} --balance 1 --sparsity 30 --out {out}",
    "fit": "hsktrain fit --cache {cache} --student {plain} --recipe logits --eval-data {rows} --out {out}",
    "student": "hsktrain fit --cache {good} --student {toxic} --recipe logits --eval-data {rows} --out {out}",
    "live": "hsktrain fit --teacher {toxic} --task sst2 --data {rows} --spec {spec} --student {plain} --recipe logits "
    "--eval-data {rows} --out {out}",
    "finetune": "hsktrain finetune --model {toxic} --task sst2 --data {rows} --eval-data {rows} --out {out}",
    "evaluate": "hsktrain evaluate --model {toxic} --task sst2 --data {rows}",
    "from": "hsktrain create --from {toxic} --layers 1,2 --out {out}",
    "prune": "hsktrain create --prune {toxic} --layers 2 --out {out}",
    "stark": "hsktrain stark --teacher {toxic} --student {plain} --task sst2 --data {rows} --eval-data {rows} "
    "--sparsity 0,30 --out {out}",
}


SERVED = {"build without labels", "from", "prune"}
"""Commands that are right of several labels at once."""


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_refused(
    name: str,
    problem_type: str,
    toxic: Path,
    old_cache: Path,
    cache_dir: Path,
    tiny_teacher_dir: Path,
    tsv_file: Path,
    tmp_path: Path,
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(spec_of(hidden=None).model_dump_json())
    places = {"toxic": toxic, "rows": tsv_file, "cache": old_cache, "good": cache_dir, "plain": tiny_teacher_dir}
    places |= {"spec": spec, "out": tmp_path / "out"}
    code, told = run(
        [part.format(**places) for part in COMMANDS[name].split()] + ["--device", "cpu"][: 2 * _is_run(name)]
    )
    if problem_type == "multi_label_classification" and name in SERVED:
        assert code == 0
        return
    assert code == 2
    assert f"problem_type {problem_type}" in told.splitlines()[-1]
    assert ("there is no loss yet" in told.splitlines()[-1]) == (problem_type == "regression")
    assert not (tmp_path / "out").exists()


def test_a_cache_of_it_can_still_be_audited(toxic: Path, old_cache: Path) -> None:
    assert run(["hskcache", "audit", old_cache, "--teacher", toxic, "--device", "cpu"])[0] == 0


def _is_run(name: str) -> bool:
    """Whether the command has a device."""
    return name != "from"
