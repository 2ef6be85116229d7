"""Random weights are begun from only where there are no others, and never in silence."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import BertConfig, BertForSequenceClassification

from hskcache.errors import SpecError, TeacherError
from hskcache.runtime import quiet
from trainer.cli import main as hsktrain
from trainer.student.create import Interface, create_encoder, create_student
from trainer.student.origin import tell_origin
from trainer.student.vocabulary import own_vocabulary, tokenizer_for

TWO = Interface(40, ("negative", "positive"))
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def saved(folder: Path, with_weights: bool = True) -> Path:
    config = BertConfig(**BERT)
    with quiet():
        (BertForSequenceClassification(config) if with_weights else config).save_pretrained(folder)
    return folder


def test_random_weights_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shape", with_weights=False)
    for source in ("tinybert4", "shape", "shape/config.json"):
        tell_origin(source)
        said = capsys.readouterr().err
        assert said.startswith(source)
        assert "starts from random weights" in said
        assert said.count("\n") == 1
    tell_origin(str(saved(tmp_path / "whole")))
    assert capsys.readouterr().err == ""
    tell_origin(str(tmp_path / "whole" / "config.json"))
    assert "the weights beside it are not read" in capsys.readouterr().err


@pytest.mark.parametrize("make", [create_student, create_encoder])
@pytest.mark.parametrize("name", ["tf_model.h5", "model.safetensors.incomplete", "flax_model.msgpack"])
def test_weights_that_are_not_read_are_not_replaced_by_random_ones(make: object, name: str, tmp_path: Path) -> None:
    assert callable(make)
    saved(tmp_path, with_weights=False)
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(TeacherError, match=name):
        make(str(tmp_path), TWO)


def test_a_folder_wins_over_a_shape_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinybert6").mkdir()
    assert create_student("tinybert6", TWO).config.hidden_size == 768
    capsys.readouterr()
    saved(tmp_path / "tinybert4")
    assert create_student("tinybert4", TWO).config.hidden_size == 16
    assert create_encoder("tinybert4", TWO).config.hidden_size == 16
    tell_origin("tinybert4")
    said = capsys.readouterr().err
    assert "tinybert4 is a folder here" in said
    assert "random" not in said
    assert own_vocabulary("tinybert4") is None


@pytest.mark.parametrize("model", ["tinybert4", "config.json", "whole", "shape"])
def test_a_model_without_a_tokenizer_asks_for_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_dir: Path, tsv_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "whole")
    saved(tmp_path / "shape", with_weights=False)
    (tmp_path / "config.json").write_bytes((tmp_path / "shape" / "config.json").read_bytes())
    with pytest.raises(SpecError, match="--tokenizer"):
        tokenizer_for(model, None)
    assert tokenizer_for(model, str(tiny_tokenizer_dir)) == str(tiny_tokenizer_dir)
    given = ["--data", str(tsv_file), "--eval-data", str(tsv_file), "--task", "sst2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(hsktrain, ["finetune", "--model", model, *given])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --model {model} brings no tokenizer")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["tinybert4", "shape"])
def test_commands_that_begin_from_random_weights_say_so(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_dir: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shape", with_weights=False)
    given = ["--tokenizer", str(tiny_tokenizer_dir), "--labels", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(hsktrain, ["create", "--student", source, *given])
    assert result.exit_code == 0
    assert f"{source} " in result.stderr
    assert "starts from random weights" in result.stderr
