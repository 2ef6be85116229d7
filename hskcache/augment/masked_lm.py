"""A masked language model with its tokenizer, and its logits at one masked position of each row.

The head over the vocabulary costs more than a small encoder below it, and only one position of a row is asked for. A
forward hook on the base model hands the head that position alone. Whether a model's head can be fed so is proven on a
small batch when it is loaded; if not, the whole logits are computed and the position is taken from them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.augment.vocabulary import word_pieces
from hskcache.counted import counted
from hskcache.encoder import identifying_config, num_positions, takes_token_types, weights_digest
from hskcache.errors import TeacherError
from hskcache.model.load import MASKED_LM, ModelDemands, load_model
from hskcache.runtime import quiet, resolve_device
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.text import load_tokenizer

_MOST_POSITIONS = 1 << 16
_SAME = 1e-3

Batch = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class PairTemplate:
    """Tokens around the two texts of a pair: ids int64, and the token type of every part.

    ``types``: of prefix, first text, middle, second text and suffix, each either one number or one a token.
    """

    prefix: NDArray[np.int64]
    middle: NDArray[np.int64]
    suffix: NDArray[np.int64]
    types: tuple[NDArray[np.int64], ...]

    @property
    def num_special(self) -> int:
        """Tokens that are not of the texts."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, eq=False)
class MaskedLM:
    """A model in eval mode on its device, its tokenizer, and what they make of words.

    ``model``: with a head over the vocabulary; ``words``: texts of the pieces that may stand for a word, by id;
    ``template``: of its input; ``gathers``: whether its head can be fed one position of each row.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    words: dict[int, str]
    template: PairTemplate
    gathers: bool

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        device: torch.device = self.model.device
        return device

    @cached_property
    def max_length(self) -> int:
        """The longest row the model reads, in tokens."""
        known = num_positions(self.model)
        return int(getattr(self.model.config, "max_position_embeddings", _MOST_POSITIONS)) if known is None else known

    @cached_property
    def takes_token_types(self) -> bool:
        """True if the model tells the two texts apart."""
        return takes_token_types(self.model)

    @cached_property
    def unwanted_V(self) -> Tensor:
        """Minus infinity for every id of the model that may not stand for a word, else 0; float32 on the device."""
        unwanted = torch.full((self.model.get_input_embeddings().num_embeddings,), -torch.inf)
        unwanted[torch.tensor(list(self.words))] = 0
        return unwanted.to(self.device)

    @property
    def facts(self) -> dict[str, str]:
        """Digests that tell whether another model would give other words."""
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        return {
            "weights_sha256": weights_digest(self.model),
            "config_sha256": sha256_hex(canonical_json(identifying_config(self.model.config))),
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        }

    def logits(self, batch: Batch, position_B: Tensor) -> Tensor:
        """Logits at one position of each row: [B, V], float32."""
        logits_BV = _gathered if self.gathers else _whole
        return logits_BV(self.model, batch, position_B).float()


def load_masked_lm(name: str, device: str = "auto") -> MaskedLM:
    """Load a masked language model and its tokenizer from a folder or the hub; it computes in float32.

    Raises SpecError if there is no such device; TeacherError if it cannot be loaded, lacks weights of its head, or its
    tokenizer has no mask token, does not tell where words begin, or does not belong to it.
    """
    place = resolve_device(device)
    with quiet():
        tokenizer = load_tokenizer(name)
    remedy = (
        "give a model as it was pre-trained, such as bert-base-uncased, not one that was fine-tuned for another task"
    )
    model, _ = load_model(name, ModelDemands(MASKED_LM, "a masked LM", remedy))
    model.to(place)
    return prepare(model, tokenizer, name)


def prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> MaskedLM:
    """Make a loaded model ready to be asked for words.

    Raises TeacherError if its tokenizer has no mask token, does not tell where words begin, or does not belong to it.
    """
    if tokenizer.mask_token_id is None:
        raise TeacherError(f"the tokenizer of {name} has no mask token; give a model that was trained with one")
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise TeacherError(
            f"the tokenizer of {name} has {counted(len(tokenizer), 'piece')} and the model knows {known}; put "
            "the tokenizer it "
            "was trained with beside it"
        )
    model.eval().requires_grad_(False)
    words = word_pieces(tokenizer, name)
    if not words:
        raise TeacherError(f"no piece in the vocabulary of {name} begins a word; give another masked LM")
    return MaskedLM(model, tokenizer, name, words, _template(tokenizer), _can_gather(model, tokenizer))


def _template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate:
    pair = tokenizer("a", "a", return_token_type_ids=True, truncation=False, padding=False)
    sides = pair.sequence_ids(0)
    ids = np.array(pair["input_ids"], np.int64)
    types = np.array(pair["token_type_ids"], np.int64)
    first, second = sides.index(0), sides.index(1)
    between, after = (len(sides) - sides[::-1].index(side) for side in (0, 1))
    bounds = ((0, first), (first, first + 1), (between, second), (second, second + 1), (after, None))
    parts = [slice(*bound) for bound in bounds]
    return PairTemplate(ids[parts[0]], ids[parts[2]], ids[parts[4]], tuple(types[part] for part in parts))


def _gathered(model: PreTrainedModel, batch: Batch, position_B: Tensor) -> Tensor:
    def one_position(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        states_BLD = output.last_hidden_state
        output.last_hidden_state = states_BLD[torch.arange(len(states_BLD), device=states_BLD.device), position_B, None]
        return output

    hook = model.base_model.register_forward_hook(one_position)
    try:
        logits: Tensor = model(**batch).logits[:, 0]
    finally:
        hook.remove()
    return logits


def _whole(model: PreTrainedModel, batch: Batch, position_B: Tensor) -> Tensor:
    logits_BLV = model(**batch).logits
    logits: Tensor = logits_BLV[torch.arange(len(logits_BLV), device=logits_BLV.device), position_B]
    return logits


def _can_gather(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if the head, fed one position of each row, gives what it gives there when fed all of them."""
    mask = tokenizer.mask_token_id
    ids = torch.tensor([[mask, mask, mask], [mask, mask, tokenizer.pad_token_id or 0]], device=model.device)
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]], device=model.device)}
    position_B = torch.tensor([2, 1], device=model.device)
    with torch.inference_mode():
        whole = _whole(model, batch, position_B)
        try:
            gathered = _gathered(model, batch, position_B)
        except Exception:  # noqa: BLE001  (a head that needs all positions fails in a way of its own)
            return False
    return gathered.shape == whole.shape and torch.allclose(gathered, whole, rtol=_SAME, atol=_SAME)
