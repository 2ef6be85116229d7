"""Commands on a model of rotary positions: rows longer than it was trained on are read, and told of."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from models import saved
from transformers import AutoTokenizer, ModernBertConfig, ModernBertForSequenceClassification

from trainer.cli import main

TRAINED = 8


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, [*map(str, args), "--device", "cpu"], catch_exceptions=False)


@pytest.fixture(scope="module")
def rotary(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "cls_token_id": tokenizer.cls_token_id, "bos_token_id": None}
    ids |= {"eos_token_id": None, "sep_token_id": tokenizer.sep_token_id}
    config = ModernBertConfig(vocab_size=len(tokenizer), max_position_embeddings=TRAINED, **sizes, **ids)
    folder = tmp_path_factory.mktemp("rotary")
    return saved(lambda: ModernBertForSequenceClassification(config), tokenizer, folder)


def test_evaluate_and_finetune_tell_of_rows_beyond_what_a_model_was_trained_on(
    rotary: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """The rows of the tiny data set have 5 tokens and more."""
    told = f"tokens and {rotary} was trained on at most {TRAINED}; it reads them"
    evaluate = ["evaluate", "--model", rotary, "--task", "sst2", "--data", tsv_file]
    result = hsktrain(*evaluate)
    assert result.exit_code == 0, result.stderr
    assert told in result.stderr
    assert "was trained on" not in hsktrain(*evaluate, "--max-length", TRAINED).stderr
    rows = ["--task", "sst2", "--data", tsv_file, "--eval-data", tsv_file]
    result = hsktrain("finetune", "--model", rotary, *rows, "--epochs", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert told in result.stderr
