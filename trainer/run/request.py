"""Request for a training run: by a command line, by another command, or in Python."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hskcache import processes
from hskcache.spec import Spec
from hskcache.text.layout import Layout
from trainer.recipe import Recipe

if TYPE_CHECKING:
    # Commands build requests, and their help works without torch.
    from hskcache.cache import Cache
    from hskcache.text.memory import InMemory
    from trainer.loading.residency import Residency


@dataclass(frozen=True)
class Machine:
    """Ways to compute, apart from what: the same run may go on with other values.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        bf16: mixed precision.
        accumulation: forward passes of one optimiser step.
        save_steps: steps between checkpoints, beside the one at the end of every epoch; None: that one alone.
        pack: tokens of a sequence at most in which rows of a language stand behind one another; None: each row has a
            sequence of its own.
        gradient_checkpointing: whether the inner values of the student's layers are computed again on the way back in
            place of being kept: less memory, a forward pass more.
        report_to: ``wandb`` or ``mlflow``, which the course of the training is sent to by the Trainer's integration;
            ``none``.
    """

    device: str = "auto"
    bf16: bool = False
    accumulation: int = 1
    save_steps: int | None = None
    pack: int | None = None
    gradient_checkpointing: bool = False
    report_to: str = "none"

    @property
    def slices(self) -> int:
        """Parts into which every batch is cut."""
        return processes.count() * self.accumulation


@dataclass(frozen=True)
class FromCache:
    """A cache to learn from.

    Attributes:
        cache: its path or URL, or the open cache.
        fields: names of fields to learn from in place of the cache's own of the same kind; logits may be weighted, as
            in ``s30=0.7``.
        num_rows: the first so many rows alone; None: all.
        residency: where its encoded rows live while training.
        tokenizer: folder or hub id of the tokenizer that reads the texts of the cache; None: the cache's own tokens.
        local_dir: of a cache at a URL, the folder of what is fetched, shared by all runs; None: the usual one, see
            :func:`hskcache.remote.mirror.local_folder`.
        local_bytes: what that folder may hold; None: :data:`hskcache.remote.mirror.LOCAL_BYTES`.
        view: the part of the cache to see, as :func:`hskcache.views.parse_view` reads it; empty: all.
    """

    cache: "Path | str | Cache"
    fields: tuple[str, ...] = ()
    num_rows: int | None = None
    residency: "Residency" = "auto"
    local_dir: Path | None = None
    local_bytes: int | None = None
    view: str = ""
    tokenizer: str | None = None


@dataclass(frozen=True)
class FromTeacher:
    """A teacher in the loop to learn from, for comparison.

    Attributes:
        teacher: folder or hub id.
        data: the rows, a file, a folder of ``save_to_disk`` or ``hub:REPO[:CONFIG]:SPLIT``.
        spec: what a cache would keep of it.
    """

    teacher: str
    data: str
    spec: Spec


@dataclass(frozen=True)
class FitRequest:
    """A student to train through the stages of a recipe, apart from how it is computed.

    Attributes:
        source: what it learns from.
        recipe: its stages.
        student: where it begins: tinybert4, tinybert6, a config.json, a folder or a hub id.
        eval_data: rows that score it; those of the first file pick its best evaluation, the others score the finished
            student alone. None for a corpus.
        layout: which columns of these rows, and of a teacher's, to read.
        metric: picks the best evaluation; None: the task's first.
        layer_map: uniform, top, bottom or teacher layers such as 3,6,9,12; None: the pairs of the cache.
        projection: ``keep`` that of earlier stages and of the student's folder, or draw a ``fresh`` one in every stage.
        exports_projection: whether it is saved in the folder of the student.
        student_dims: values of the embeddings that the student learns to give, along the principal directions of the
            teacher's; None: as many as the teacher's.
        seed: of all that is drawn.
        called: name of the student in messages and on its card; None: as ``student`` has it.
    """

    source: FromCache | FromTeacher
    student: str
    recipe: Recipe
    eval_data: "tuple[str | InMemory, ...]" = ()
    layout: Layout = field(default_factory=Layout)
    metric: str | None = None
    layer_map: str | None = None
    projection: Literal["keep", "fresh"] = "keep"
    exports_projection: bool = True
    student_dims: int | None = None
    seed: int = 0
    called: str | None = None

    @property
    def origin(self) -> str:
        """Name of where the student begins."""
        return self.called or self.student


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Settings of fine-tuning, whatever the rows.

    Attributes:
        model: what create_student takes: a folder with or without weights, a config.json, a hub id, a student's name.
        epochs: passes over the training rows.
        learning_rate: of AdamW at its peak; it falls linearly to 0.
        batch_size: rows of one forward pass on one device.
        seed: of new weights, the order of rows and dropout.
        warmup_ratio: share of the steps over which the learning rate rises, in [0, 1).
        weight_decay: of AdamW, biases and norms excepted.
        bf16: train and evaluate under bfloat16 autocast.
        gradient_accumulation: batches of one optimizer step.
        patience: stop after this many epochs without a better evaluation; None trains all epochs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        save_steps: steps between checkpoints, beside the one at the end of every epoch; None: that one alone.
        eval_steps: optimizer steps between evaluations, beside the one at the end of every epoch; None: that one alone.
        report_to: as of :class:`Machine`.
        called: name of a model in memory, in messages, its card and the run; None: as ``model`` has it.
    """

    model: str
    epochs: int = 3
    learning_rate: float = 2e-5
    batch_size: int = 32
    seed: int = 0
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    bf16: bool = False
    gradient_accumulation: int = 1
    patience: int | None = None
    device: str = "auto"
    save_steps: int | None = None
    eval_steps: int | None = None
    report_to: str = "none"
    called: str | None = None

    @property
    def origin(self) -> str:
        """Name of the model."""
        return self.called or self.model


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(Tuning):
    """A model to fine-tune on labels.

    Attributes:
        data: training rows.
        eval_data: rows that pick the best evaluation.
        layout: which columns of both to read.
        tokenizer: folder or hub id; None: the model's.
        metric: picks the best evaluation; None: the task's first.
        max_length: tokens of a row, special tokens included; None: those of the run that goes on, the task's or 128.
    """

    data: "str | InMemory"
    eval_data: "str | InMemory"
    layout: Layout = field(default_factory=Layout)
    tokenizer: str | None = None
    metric: str | None = None
    max_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments(Tuning):
    """Everything that decides a run of fine-tuning, apart from its rows.

    ``max_length``: tokens of a row, special tokens included. ``metrics``: names for metrics_for, the one that picks the
    best evaluation first; empty takes the defaults. ``device``: ``cpu``, ``cuda`` or ``cuda:N``: one that is there.
    """

    device: str = "cpu"
    max_length: int = 128
    metrics: tuple[str, ...] = ()
