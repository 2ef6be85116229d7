import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import wait_for_the_next_second
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from hskcache.errors import CacheError, DataError, MismatchError, SpecError
from hskcache.evaluation import evaluate
from hskcache.locks import sole_writer
from hskcache.metrics import metrics_for
from hskcache.text import examples_for, load_task, tokenize
from trainer.run.finetune import finetune
from trainer.run.finetuner import Labelled
from trainer.run.request import FinetuneArguments

Finetune = Callable[..., dict[str, Any]]


def run_until(checkpoint: str, args: list[str], out: Path) -> None:
    """Run the command and kill this process, as a full machine would, once a checkpoint is whole."""
    from trainer.cli import main

    def kill() -> None:
        while not (out / "checkpoints" / checkpoint / "trainer_state.json").is_file():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    main([*args, "--out", str(out)])


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers that learns the tiny data set in a few epochs."""
    path = tmp_path_factory.mktemp("config") / "config.json"
    config = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    path.write_text(json.dumps(config | {"intermediate_size": 64}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    logging.disable_progress_bar()
    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(scope="session")
def data(tsv_file: Path, tokenizer: PreTrainedTokenizerFast) -> Labelled:
    examples = examples_for(tsv_file, load_task("sst2"))
    return Labelled(examples, tokenize(examples, tokenizer, 32))


@pytest.fixture
def run(config_file: Path, tokenizer: PreTrainedTokenizerFast, data: Labelled, tmp_path: Path) -> Finetune:
    """Fine-tune into ``tmp_path/out`` with settings quick to learn by, apart from those given."""

    def start(
        train: Labelled = data, dev: Labelled = data, out: Path = tmp_path / "out", **changes: Any
    ) -> dict[str, Any]:
        settings = {"model": str(config_file), "epochs": 2, "learning_rate": 3e-3, "batch_size": 8, "max_length": 32}
        return finetune(FinetuneArguments(**settings | changes), tokenizer, train, dev, out)

    return start


def scores(data: Labelled, factor: float = 1.0) -> Labelled:
    """The same rows as a regression: a long sentence scores high."""
    labels = (factor * data.rows.lengths).astype(np.float32)
    return Labelled(dataclasses.replace(data.examples, labels=labels, label_names=(), problem="regression"), data.rows)


def scalars(logs: Path, name: str) -> list[float]:
    """The values that TensorBoard shows for ``name``, in the order of steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_the_best_epoch_is_saved_as_an_ordinary_checkpoint(run: Finetune, data: Labelled, tmp_path: Path) -> None:
    result = run(epochs=6)
    out = tmp_path / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out)
    metrics = metrics_for("classification")
    assert result["best"]["metrics"]["accuracy"] > 0.95
    assert evaluate(model, data.examples, data.rows, metrics) == pytest.approx(result["best"]["metrics"])
    assert model.config.id2label == {0: "0", 1: "1"}
    assert model.config.problem_type == "single_label_classification"
    assert len(AutoTokenizer.from_pretrained(out)) == model.config.vocab_size


def test_a_folder_that_another_run_writes_is_refused(run: Finetune, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "out"), pytest.raises(CacheError, match="out is being written by another process"):
        run()
    assert not (tmp_path / "out").exists()


def test_the_result_tells_every_epoch_and_the_first_best(run: Finetune, tmp_path: Path) -> None:
    result = run(epochs=3, metrics=("matthews", "accuracy"))
    assert result["metric"] == "matthews"
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2, 3]
    assert [epoch["step"] for epoch in result["epochs"]] == [12, 24, 36]
    assert list(result["best"]["metrics"]) == ["matthews", "accuracy"]
    assert result["best"] == max(result["epochs"], key=lambda epoch: epoch["metrics"]["matthews"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")) == result


def test_the_folder_holds_the_model_the_logs_and_nothing_of_the_way(run: Finetune, tmp_path: Path) -> None:
    run()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "history.jsonl",
        "logs",
        "metrics.json",
        "model.safetensors",
        "rows.json",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.json",
    }
    assert list((tmp_path / "out" / "logs").glob("events.out.tfevents.*"))


def test_nothing_is_printed_on_stdout(run: Finetune, capfd: pytest.CaptureFixture[str]) -> None:
    run()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "epoch 2: accuracy" in printed.err


def test_a_pre_trained_encoder_without_a_classifier_can_start(run: Finetune, data: Labelled, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vocabulary = int(data.rows.input_ids.max()) + 100
    BertModel(BertConfig(vocab_size=vocabulary, **sizes)).save_pretrained(tmp_path / "encoder")
    run(model=str(tmp_path / "encoder"), epochs=1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert (model.config.num_hidden_layers, model.config.vocab_size) == (1, vocabulary)


def test_a_regression_learns_scores(run: Finetune, data: Labelled, tmp_path: Path) -> None:
    rows = scores(data, factor=0.1)
    result = run(rows, rows, epochs=4)
    assert result["metric"] == "pearson"
    assert result["best"]["metrics"]["pearson"] > 0.5
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_the_same_seed_gives_the_same_weights_and_another_does_not(run: Finetune, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(out=tmp_path / name, epochs=1, seed=seed)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_accumulated_batches_are_one_large_batch(run: Finetune, config_file: Path, tmp_path: Path) -> None:
    """Without dropout two batches of 8 must give the loss and the gradient of one of 16: means, not sums."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    still = tmp_path / "still.json"
    still.write_text(
        json.dumps(config | {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}), encoding="utf-8"
    )
    logged = []
    for batch_size, accumulation in ((16, 1), (8, 2)):
        out = tmp_path / str(batch_size)
        run(out=out, model=str(still), batch_size=batch_size, gradient_accumulation=accumulation, epochs=1)
        logged.append([scalars(out / "logs", f"train/{name}") for name in ("loss", "grad_norm")])
    assert len(logged[0][0]) == 6
    np.testing.assert_allclose(logged[0], logged[1], rtol=1e-3)


def test_patience_stops_a_run_that_gets_no_better(run: Finetune) -> None:
    result = run(learning_rate=1e-12, epochs=9, patience=2)
    assert len(result["epochs"]) == 3
    assert result["best"]["epoch"] == 1


def test_evaluations_within_epochs_may_be_the_best(run: Finetune, data: Labelled, tmp_path: Path) -> None:
    result = run(epochs=2, eval_steps=5)
    assert [entry["step"] for entry in result["epochs"]] == [5, 10, 12, 15, 20, 24]
    best = max(result["epochs"], key=lambda entry: entry["metrics"]["accuracy"])
    assert result["best"] == best
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    scored = evaluate(model, data.examples, data.rows, metrics_for("classification"))
    assert scored == pytest.approx(best["metrics"])


def test_bfloat16_on_the_cpu_trains_float32_weights(run: Finetune, tmp_path: Path) -> None:
    run(bf16=True, epochs=1)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_finished_run_is_not_run_again(run: Finetune, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = run(epochs=1)
    written = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert run(epochs=1, device="cpu") == first
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == written
    assert "finished already" in capfd.readouterr().err


def test_other_settings_or_rows_need_another_folder(run: Finetune, data: Labelled) -> None:
    run(epochs=1)
    with pytest.raises(MismatchError, match="learning_rate"):
        run(epochs=1, learning_rate=1e-4)
    other = dataclasses.replace(data, examples=dataclasses.replace(data.examples, fingerprint="other"))
    with pytest.raises(MismatchError, match="train"):
        run(other, epochs=1)


def test_a_mistake_leaves_no_folder_behind(run: Finetune, data: Labelled, tmp_path: Path) -> None:
    unlabelled = dataclasses.replace(data, examples=dataclasses.replace(data.examples, labels=None))
    renamed = dataclasses.replace(data, examples=dataclasses.replace(data.examples, label_names=("no", "yes")))
    with pytest.raises(DataError, match="no row has a gold label"):
        run(unlabelled)
    with pytest.raises(MismatchError, match=r"classes 0, 1 and .* classes no, yes"):
        run(dev=renamed)
    with pytest.raises(MismatchError, match=r"classes 0, 1 and .* scores"):
        run(dev=scores(data))
    with pytest.raises(SpecError, match="pearson"):
        run(metrics=("pearson",))
    assert not (tmp_path / "out").exists()


def test_rows_longer_than_the_model_s_positions_are_refused(run: Finetune, config_file: Path, tmp_path: Path) -> None:
    config = json.loads(config_file.read_text(encoding="utf-8"))
    short = tmp_path / "short.json"
    short.write_text(json.dumps(config | {"max_position_embeddings": 8}), encoding="utf-8")
    with pytest.raises(MismatchError, match="--max-length 8"):
        run(model=str(short))


@pytest.mark.parametrize(("checkpoint", "patience"), [("checkpoint-24", None), ("checkpoint-36", 2)])
def test_a_killed_run_goes_on_to_the_same_weights(
    checkpoint: str, patience: int | None, config_file: Path, tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """SIGKILL within training, or when patience has just ended it: bit for bit the run that was never stopped."""
    rate = 3e-3 if patience is None else 1e-12
    options = {"epochs": 5, "lr": rate, "batch-size": 8, "max-length": 32, "device": "cpu", "task": "sst2"}
    files = {"model": config_file, "tokenizer": tiny_tokenizer_dir, "data": tsv_file, "eval-data": tsv_file}
    command = [f"--{key}={value}" for key, value in (options | files).items()]
    command += [] if patience is None else [f"--patience={patience}"]
    out = tmp_path / "killed"
    assert children.run(run_until, checkpoint, ["finetune", *command], out) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    wait_for_the_next_second(out)
    if patience is not None:
        # As older versions left it, which kept no best weights beside their checkpoints.
        for path in (out / "checkpoints").glob("best-*"):
            path.unlink()

    # The same process settings as the command's, so that both runs are one.
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    examples = examples_for(tsv_file, load_task("sst2"))
    rows = Labelled(examples, tokenize(examples, tokenizer, 32))
    settings = {"model": str(config_file), "epochs": 5, "learning_rate": rate, "batch_size": 8, "max_length": 32}
    arguments = FinetuneArguments(**settings, metrics=("accuracy",), patience=patience)
    resumed = finetune(arguments, tokenizer, rows, rows, out)
    whole = finetune(arguments, tokenizer, rows, rows, tmp_path / "whole")
    assert resumed == whole
    assert scalars(out / "logs", "train/loss") == scalars(tmp_path / "whole" / "logs", "train/loss")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
