"""Cost of a model: parameters, bytes, floating-point operations, and rows a second beside another model.

"7.5x smaller and 9.4x faster" [TinyBERT 4.2] compares all of these: a student's with its teacher's. Dimension letters:
B rows of a batch, L tokens of a row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, PreTrainedModel

from hskcache.encoder import num_positions
from hskcache.errors import MismatchError, TeacherError
from hskcache.model.load import CLASSIFIER, ModelDemands, answering, draw_model, folder_of, load_config, load_model
from hskcache.model.weights import weights_bytes
from hskcache.nearest import meant
from trainer.student.create import seeded
from trainer.student.origin import STUDENTS, has_no_weights
from trainer.timing import Times, alternate

_BERT = {"model_type": "bert", "max_position_embeddings": 512}
SHAPES: dict[str, dict[str, Any]] = {
    **{name: _BERT | shape for name, shape in STUDENTS.items()},
    # [MUD 4.1]: two heads of 64 a layer, and a word embedding of rank 128.
    "rosita6": _BERT
    | {
        "model_type": "compact_bert",
        "num_hidden_layers": 6,
        "hidden_size": 768,
        "intermediate_size": 768,
        "num_attention_heads": 2,
        "head_size": 64,
        "embedding_rank": 128,
    },
    "bert-base": _BERT,
}
"""Shapes by name, of random weights: BERT's vocabulary of 30,522 pieces and a classifier of two classes."""

_LEAST_S = 0.2
"""Seconds of work between two looks at the clock, at least."""


@dataclass(frozen=True, eq=False)
class ProfiledModel:
    """A model to look at.

    ``source``: as it was given. ``model``: in eval mode on its device. ``file_bytes``: of its weights on disk; None of
    a shape, which has none.
    """

    source: str
    model: PreTrainedModel
    file_bytes: int | None

    @property
    def num_parameters(self) -> int:
        """Numbers that training would change, each once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights on disk; of a shape, those of its parameters in float32."""
        return 4 * self.num_parameters if self.file_bytes is None else self.file_bytes

    def flops(self, length: int) -> int:
        """Floating-point operations of the matrix products of a row of ``length`` tokens, two for each product and sum.

        Everything else, such as softmax, LayerNorm and GELU, is linear in the row's states and is not counted.
        """
        before = self.model.config._attn_implementation
        # The counter knows no formula of the processor's fused attention.
        self.model.set_attn_implementation("eager")
        try:
            with FlopCounterMode(display=False) as counter:
                self.forward(self.ids(1, length))
        finally:
            self.model.set_attn_implementation(before)
        return int(counter.get_total_flops())

    def ids(self, batch_size: int, length: int) -> torch.Tensor:
        """Random token ids, int64 [B, L] on the model's device, the same at every call."""
        drawn = torch.randint(
            self.model.config.vocab_size, (batch_size, length), generator=torch.Generator().manual_seed(0)
        )
        return drawn.to(self.model.device)

    def forward(self, ids_BL: torch.Tensor, bf16: bool = False) -> None:
        """One pass over rows without padding."""
        with torch.inference_mode(), torch.autocast(ids_BL.device.type, dtype=torch.bfloat16, enabled=bf16):
            self.model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL))

    def require_lengths(self, lengths: Sequence[int]) -> None:
        """Refuse rows that are longer than the model's positions. Raises MismatchError naming the longest."""
        positions = num_positions(self.model)
        if positions is not None and max(lengths) > positions:
            raise MismatchError(
                f"{self.source} has {positions} positions; give --lengths up to that, not {max(lengths)}"
            )


@dataclass(frozen=True)
class Speed:
    """Seconds a row of each side in one setting.

    ``length``, ``batch_size``: of the batches, B x L tokens without padding; ``times``: seconds a row, of every
    repetition.
    """

    length: int
    batch_size: int
    times: Times

    def rows_a_second(self, side: str) -> float:
        """Rows a second of a side, by the median."""
        return 1 / self.times.median(side)


def open_side(source: str, device: str) -> ProfiledModel:
    """A model by the name of a shape, of a config.json, a folder or the hub. Raises TeacherError if it cannot be read.

    ``source``: a key of SHAPES, unless a model's folder has that name, or whatever holds a model. A checkpoint without
    a classifier gets one of random weights.
    """
    if source in SHAPES and not Path(source, "config.json").is_file():
        shape = SHAPES[source]
        config = AutoConfig.for_model(**shape)
        with seeded(0):
            return _placed(ProfiledModel(source, draw_model(source, CLASSIFIER, config, "a model"), None), device)
    if has_no_weights(source):
        with seeded(0):
            config = load_config(source, "a model")
            model = draw_model(source, answering(config), config, "a model")
        return _placed(ProfiledModel(source, model, None), device)
    try:
        with seeded(0):
            kind = answering(load_config(source, "a model"))
            model = load_model(source, ModelDemands(kind, "a model", new_head=True)).model
    except TeacherError as error:
        raise TeacherError(f"{error}{'' if Path(source).exists() else meant(source, SHAPES)}") from None
    folder = folder_of(source, "config.json")
    return _placed(ProfiledModel(source, model, None if folder is None else weights_bytes(folder)), device)


def _placed(side: ProfiledModel, device: str) -> ProfiledModel:
    if side.model.config.pad_token_id is None:
        # Decoders look for the last token that is no padding, and refuse batches where none is named.
        side.model.config.pad_token_id = 0
    # The counter of operations looks for the gradient of what a layer answers, and a view of a parameter, as a layer
    # without heads gives, seems to have one.
    side.model.requires_grad_(False).to(device)
    return side


def speeds(
    sides: Mapping[str, ProfiledModel],
    settings: tuple[Sequence[int], Sequence[int]],
    repetitions: int,
    bf16: bool = False,
    on_done: Callable[[], None] = lambda: None,
) -> Iterator[Speed]:
    """Rows a second of each side, all of them taking turns, setting by setting.

    Args:
        sides: by name.
        settings: lengths and batch sizes, each pair of which is one.
        repetitions: of each side in each setting, beside an untimed one.
        bf16: compute under bfloat16 autocast.
        on_done: called after each repetition of a side, the untimed one included.
    """
    for length, batch_size in product(*settings):
        works, passes = {}, {}
        for name, side in sides.items():
            once = _work(side, side.ids(batch_size, length), 1, bf16)
            # The first pass pays for what is set up once.
            once()
            start = perf_counter()
            once()
            passes[name] = max(1, ceil(_LEAST_S / max(perf_counter() - start, 1e-6)))
            works[name] = _work(side, side.ids(batch_size, length), passes[name], bf16)
        times = alternate(works, repetitions, on_done=on_done).seconds
        rows = {name: passes[name] * batch_size for name in sides}
        yield Speed(length, batch_size, Times({name: [s / rows[name] for s in times[name]] for name in sides}))


def _work(side: ProfiledModel, ids_BL: torch.Tensor, passes: int, bf16: bool) -> Callable[[], None]:
    def work() -> None:
        for _ in range(passes):
            side.forward(ids_BL, bf16)
        if ids_BL.device.type == "cuda":
            torch.cuda.synchronize(ids_BL.device)

    return work
