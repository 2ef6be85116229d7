"""A small padded batch through a model, and what its answers prove of the model."""

from collections.abc import Mapping
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from hskcache.rounding import is_close


def probe_inputs(model: PreTrainedModel, pad_token_id: int | None) -> dict[str, Tensor]:
    """A row of five tokens and one of three with padding; each ends with the token that ends texts, if there is one."""
    config = model.config
    own, end = config.pad_token_id, getattr(config, "eos_token_id", None)
    pad = (own or 0) if pad_token_id is None else pad_token_id
    special = {pad, own, end, getattr(config, "bos_token_id", None)}
    words = [token for token in range(3, config.vocab_size) if token not in special][:5]
    last = end if isinstance(end, int) and 0 <= end < config.vocab_size else words[4]
    ids = torch.tensor([[*words[:4], last], [*words[:2], last, pad, pad]], device=model.device)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=model.device)
    return {"input_ids": ids, "attention_mask": mask}


def check_pad_token(model: PreTrainedModel, pad: int) -> None:
    """Raise TeacherError where a model finds the end of a text by another padding token than rows have, or by none."""
    own = model.config.pad_token_id
    finds_end = not getattr(model.config, "is_encoder_decoder", False) and hasattr(model, "score")
    if finds_end and own != pad:
        raise TeacherError(
            f"{type(model).__name__} answers at the last token before the padding, which is {own} by its config.json "
            f"and {pad} by its tokenizer; give pad_token_id there the value that it was trained with, and the "
            "tokenizer the same"
        )


@torch.inference_mode()
def run_probe(model: PreTrainedModel, inputs: Mapping[str, Tensor], **asked: bool) -> Any:
    """Output of a model for some inputs; ``asked`` is what it is to report beside its answer.

    Raises:
        TeacherError: it needs other inputs, too.
    """
    try:
        return model(**inputs, **asked)
    except Exception as error:  # noqa: BLE001  (whatever a model asks for beyond token ids, it is not given here)
        raise TeacherError(
            f"{type(model).__name__} does not run on token ids and a mask alone: {shorten(str(error), 200)}; use a "
            "plain encoder such as BERT"
        ) from None


def answer_of(output: Any) -> Tensor:
    """The logits, or the last hidden states of a model without a head."""
    logits = getattr(output, "logits", None)
    answer: Tensor = output[0] if logits is None else logits
    return answer


def check_padding(model: PreTrainedModel, inputs: Mapping[str, Tensor], reported: Any) -> None:
    """Raise TeacherError unless the padded row is answered as it is alone."""
    length = int(inputs["attention_mask"][1].sum())
    alone = answer_of(run_probe(model, {name: tensor[1:, :length] for name, tensor in inputs.items()}))[0]
    padded = answer_of(reported)[1]
    if alone.dim() > 1:
        padded = padded[:length]
    if alone.shape != padded.shape or not is_close(padded, alone):
        raise TeacherError(
            f"{type(model).__name__} answers a row otherwise when it is padded to the length of another, so what it "
            "says would depend on the batch; use a model that heeds the attention mask, such as BERT"
        )
