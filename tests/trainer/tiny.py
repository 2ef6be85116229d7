"""Tiny caches, students and runs that the trainer's tests share; the fixtures over them are in conftest.py."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from hskcache.build.build import Job, build, prepare_job
from hskcache.cache import Cache, open_cache
from hskcache.evaluation import evaluate
from hskcache.metrics import metrics_for
from hskcache.spec import Depth, Hidden, Length, Spec, Width
from hskcache.teacher.load import load_teacher
from hskcache.text import examples_for, load_task, tokenize
from trainer.recipe import Recipe
from trainer.run.fit import Fit
from trainer.run.request import Machine
from trainer.source.source import Source, cached_source
from trainer.student.create import create_student

CPU = Machine(device="cpu")
MAX_LENGTH = 24

# One of every column kind of the format: shared, indices (few columns), bitmask (many), pca, all.
WIDTHS = {
    "uniform": Width(scheme="uniform", fraction=0.3),
    "random": Width(scheme="random", fraction=0.3, seed=3),
    "indices": Width(scheme="magnitude", fraction=0.05),
    "bitmask": Width(scheme="magnitude", fraction=0.4),
    "pca": Width(scheme="pca", fraction=0.25),
    "all": Width(scheme="all"),
}


def spec_of(width: str = "bitmask", **changes: Any) -> Spec:
    """Two layers for a student of two; rows of the tiny data set have 5 to 17 tokens, so 9 are ragged."""
    hidden = Hidden(
        depth=Depth(student_layers=2, num_layers=2),
        length=Length(tokens=9),
        width=WIDTHS[width],
        encoding=changes.pop("encoding", "float32"),
    )
    settings: dict[str, Any] = {"hidden": hidden, "max_length": MAX_LENGTH, "shard_rows": 8}
    return Spec(**settings | changes)


def job_of(teacher: Path, data: Path, spec: Spec, task: str = "sst2") -> Job:
    """What a build of these would do."""
    logging.disable_progress_bar()
    loaded = load_teacher(str(teacher), "cpu")
    examples = examples_for(data, load_task(task))
    return prepare_job(loaded, examples, tokenize(examples, loaded.tokenizer, spec.max_length), spec, task)


def without_labels(job: Job) -> Job:
    """The same rows as if nobody had labelled them."""
    return replace(job, labels=None)


def cache_of(job: Job, folder: Path) -> Cache:
    """Build and open."""
    build(job, folder)
    return open_cache(folder)


def config_file(folder: Path, width: int = 32, **changes: Any) -> Path:
    """A BERT of two layers without dropout; ``width`` other than 32 needs a projection."""
    config = {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bert{width}-{len(changes)}.json"
    path.write_text(json.dumps(config | changes), encoding="utf-8")
    return path


def student_of(source: Source, config: Path, seed: int = 0) -> PreTrainedModel:
    """A student with random weights that fits the knowledge."""
    return create_student(str(config), source.knowledge.interface(), seed)


def recipe_of(**stages: dict[str, Any]) -> Recipe:
    """A recipe of these stages, in order."""
    given = [{"name": name, "learning_rate": 1e-3, "batch_size": 16} | stage for name, stage in stages.items()]
    return Recipe.model_validate_json(json.dumps({"name": "tiny", "stages": given}))


HIDDEN: dict[str, Any] = {"losses": {"hidden": {}}, "epochs": 2, "schedule": "constant"}
PREDICTION: dict[str, Any] = {"losses": {"soft": {}, "label": {"weight": 0.5}}, "epochs": 2, "select": "best"}


def fit_of(cache: Path, data: Path, student: Path, recipe: Recipe, **changes: Any) -> Fit:
    """A run of ``recipe`` over ``cache``, scored on ``data``."""
    source = changes.pop("source", None) or cached_source(cache)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer)
    examples = examples_for(data, load_task("sst2"))
    rows = tokenize(examples, tokenizer, MAX_LENGTH)
    metrics = metrics_for("classification")

    def score(model: PreTrainedModel) -> dict[str, float]:
        return evaluate(model, examples, rows, metrics)

    settings: dict[str, Any] = {
        "source": source,
        "recipe": recipe,
        "student": student_of(source, student),
        "tokenizer": tokenizer,
        "score": score,
        "metric": "accuracy",
    }
    return Fit(**settings | changes)


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    """The saved student's."""
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


def scalars(logs: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of the folder: name -> step -> value; what depends on the clock is left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    clock = ("runtime", "second", "total", "train_loss")
    names = [name for name in events.Tags()["scalars"] if not any(word in name for word in clock)]
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in names}


def wait_for_the_next_second(out: Path) -> None:
    """TensorBoard reads event files by the second in their names; no other restart is as quick as a test's."""
    latest = max((int(path.name.split(".")[3]) for path in out.glob("logs/**/events*")), default=0)
    while int(time.time()) <= latest:
        time.sleep(0.02)
