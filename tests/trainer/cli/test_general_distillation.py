"""Students without a head: trained from the cache of a corpus, and where a task goes on from there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file, scalars, weights_of
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from hskcache.cache import Cache
from hskcache.errors import MismatchError, TeacherError
from trainer.cli import main as hsktrain
from trainer.student.create import Interface, create_encoder
from trainer.student.origin import STUDENTS

HSKTRAIN = Path(sys.executable).with_name("hsktrain")
GENERAL = ["--recipe", "tinybert-general", "--set", "general.batch_size=8", "--set", "general.learning_rate=1e-3"]
TERMS = ["embedding", "hidden", "attention"]


@pytest.fixture(scope="module")
def corpus(written: Callable[..., Cache]) -> Path:
    return written(corpus=True).root


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_file(tmp_path_factory.mktemp("student"), width=16, num_attention_heads=4)


@pytest.fixture(scope="module")
def general(corpus: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder trained by the command in a process of its own."""
    out = tmp_path_factory.mktemp("general") / "out"
    done = run("fit", "--cache", corpus, "--student", student, *GENERAL, "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["general", term] for term in sorted(TERMS)]
    assert "general: 9 steps" in done.stderr
    return out


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HSKTRAIN, *map(str, args)], capture_output=True, text=True, check=False)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(hsktrain, list(map(str, args)), catch_exceptions=False)


def test_the_result_is_an_ordinary_base_checkpoint(general: Path) -> None:
    config = json.loads((general / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertModel"]
    assert not {"id2label", "label2id", "problem_type", "attn_implementation", "_attn_implementation"} & {
        key for key, value in config.items() if value is not None
    }
    model = AutoModel.from_pretrained(general)
    assert type(model) is BertModel
    assert set(weights_of(general)) == set(model.state_dict())
    assert len(AutoTokenizer.from_pretrained(general)) == model.config.vocab_size
    metrics = json.loads((general / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["metric"], metrics["scores"]) == (None, {})
    losses = scalars(general / "logs" / "general")
    for term in TERMS:
        values = list(losses[f"train/loss_{term}"].values())
        assert metrics["stages"][0]["losses"][term] == pytest.approx(values[-1])
        assert values[-1] < values[0], "training teaches"


def test_a_task_begins_from_it_with_a_head_of_its_own(
    general: Path, written: Callable[..., Cache], tsv_file: Path, tmp_path: Path
) -> None:
    """Steps too small to move a weight show that the encoder, pooler included, is what the task begins with."""
    tiny = ["--set", "intermediate.learning_rate=1e-12", "--set", "prediction.learning_rate=1e-12"]
    short = ["--set", "intermediate.epochs=0.5", "--set", "prediction.epochs=0.5"]
    given = ["--cache", written().root, "--student", general, "--eval-data", tsv_file, "--recipe", "tinybert-task"]
    result = invoke("fit", *given, *tiny, *short, "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    assert [stage["name"] for stage in json.loads(result.stdout)["stages"]] == ["intermediate", "prediction"]
    task = weights_of(tmp_path / "out")
    encoder = weights_of(general)
    assert any(name.startswith("pooler") for name in encoder)
    for name, tensor in encoder.items():
        torch.testing.assert_close(task[f"bert.{name}"], tensor, rtol=0, atol=1e-6)
    assert set(task) - {f"bert.{name}" for name in encoder} == {"classifier.weight", "classifier.bias"}


def test_the_same_command_finds_it_finished(general: Path, corpus: Path, student: Path) -> None:
    again = invoke(
        "fit", "--cache", corpus, "--student", student, *GENERAL, "--out", general, "--device", "cpu", "--json"
    )
    assert json.loads(again.stdout)["metric"] is None
    assert "is finished already" in again.stderr


MISTAKES: dict[str, tuple[list[str], str]] = {
    "evaluation data": (["--eval-data", "{data}", *GENERAL], "scores a classifier, and the cache"),
    "a recipe of answers": (["--recipe", "logits"], "learns from a classifier's answers, and the cache"),
    "the usual recipe": (["--recipe", "mud"], "stage 'prediction' of recipe 'mud' learns from a classifier's answers"),
    "labels": (["--recipe", "labels"], "use --recipe tinybert-general"),
    "the best epoch": ([*GENERAL, "--set", "general.select=best"], "use --set general.select=last"),
    "columns": ([*GENERAL, "--task", "sst2"], "holds a corpus without a task; leave out --task"),
    "another map": ([*GENERAL, "--layer-map", "top"], "--store-layers all"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_only_a_task_has_is_refused_in_one_line(
    mistake: str, corpus: Path, student: Path, tsv_file: Path, tmp_path: Path
) -> None:
    args, complaint = MISTAKES[mistake]
    given = [arg.format(data=tsv_file) for arg in args]
    result = invoke(
        "fit", "--cache", corpus, "--student", student, *given, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_task_needs_rows_to_score_on(written: Callable[..., Cache], student: Path, tmp_path: Path) -> None:
    given = ["--cache", written().root, "--student", student, "--recipe", "logits", "--out", tmp_path / "out"]
    result = invoke("fit", *given, "--device", "cpu")
    assert result.exit_code == 2
    assert "give --eval-data FILE" in result.stderr


def interface(vocab_size: int = 90) -> Interface:
    return Interface(vocab_size, (), max_positions=32)


def test_an_encoder_is_made_from_a_name_a_shape_or_weights(tmp_path: Path) -> None:
    named = create_encoder("tinybert4", interface())
    assert type(named) is BertModel
    assert named.config.num_hidden_layers == STUDENTS["tinybert4"]["num_hidden_layers"]
    assert (named.config.vocab_size, named.config.max_position_embeddings) == (90, 32)
    config = config_file(tmp_path)
    first, again, other = (create_encoder(str(config), interface(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    classifier = BertForSequenceClassification(BertConfig.from_json_file(config))
    classifier.save_pretrained(tmp_path / "classifier")
    loaded = create_encoder(str(tmp_path / "classifier"), interface()).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in classifier.bert.state_dict().items())


def test_making_an_encoder_leaves_the_random_generators_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    create_encoder(str(config_file(tmp_path)), interface())
    assert torch.equal(torch.get_rng_state(), before)


def test_sources_that_give_no_encoder_are_refused(tmp_path: Path) -> None:
    config = config_file(tmp_path)
    create_encoder(str(config), interface()).save_pretrained(tmp_path / "small")
    with pytest.raises(MismatchError, match="knows 90 token ids and the tokenizer has 120"):
        create_encoder(str(tmp_path / "small"), interface(120))
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(TeacherError, match=r"cannot load a student from .*broken\.json"):
        create_encoder(str(tmp_path / "broken.json"), interface())
    with pytest.raises(TeacherError, match="is no file or folder"):
        create_encoder("./huge", interface())
    # Before a hub is asked, which is out of reach here and would be waited for.
    with pytest.raises(TeacherError, match="do you mean 'tinybert4'"):
        create_encoder("tinybrt4", interface())
    weights: dict[str, Any] = dict(weights_of(tmp_path / "small"))
    del weights["encoder.layer.1.output.dense.bias"]
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "small" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TeacherError, match="lacks 1 weight of its own encoder"):
        create_encoder(str(tmp_path / "small"), interface())
