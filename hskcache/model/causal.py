"""Causal language models: which checkpoints are some, and why another is none."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hskcache.errors import TeacherError
from hskcache.model.load import CAUSAL_LM, ModelDemands, draw_model, load_config, load_model
from hskcache.spec import ComputeDtype

_CAUSAL: Mapping[str, Any] = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
_MASKED: Mapping[str, Any] = MODEL_FOR_MASKED_LM_MAPPING_NAMES
_HEADS = ("ForCausalLM", "LMHeadModel")
# Tokens of a row on which a model is seen to be causal.
_PROBE = 8


def is_causal(config: PreTrainedConfig) -> bool:
    """True if a checkpoint is a causal language model by its configuration.

    A configuration without ``architectures``, as people write them for a new model, is one of a type that has no other
    language model.
    """
    if getattr(config, "is_encoder_decoder", False) or _reads_both_sides(config):
        return False
    if names := config.architectures or ():
        return any(str(name).endswith(_HEADS) for name in names)
    return config.model_type in _CAUSAL


def refuse_causal(name: str, config: PreTrainedConfig, instead: str) -> None:
    """Raise TeacherError if a model is a causal language model, where only others can be; ``instead``: what to do."""
    if is_causal(config):
        raise TeacherError(f"{name} is a causal language model ({config.model_type}) without classes; {instead}")


def refuse_encoder_decoder(name: str, config: PreTrainedConfig) -> None:
    """Raise TeacherError if a teacher is an encoder with a decoder that writes texts."""
    writes = any(str(one).endswith("ForConditionalGeneration") for one in config.architectures or ())
    if writes and getattr(config, "is_encoder_decoder", False):
        require_causal(name, config, "a teacher")


def require_causal(name: str, config: PreTrainedConfig, called: str) -> None:
    """Raise TeacherError unless a configuration is one of models that say the next token from those before.

    ``called``: the model in words, such as ``a student``.
    """
    if getattr(config, "is_encoder_decoder", False):
        reason = "an encoder with a decoder, which is not treated yet"
    elif config.model_type not in _CAUSAL:
        reason = "of a type that has no causal language model in transformers"
    elif _reads_both_sides(config):
        reason = "an encoder, which reads the words on both sides"
    else:
        return
    raise TeacherError(f"{called} from {name}: {config.model_type} is {reason}; give a causal language model")


def load_causal(
    name: str, called: str, dtype: ComputeDtype = "float32", config: PreTrainedConfig | None = None
) -> PreTrainedModel:
    """A causal language model from a folder or the hub, on the CPU in eval mode.

    ``called``: it in words; ``config``: in place of its own. Raises TeacherError if it cannot be loaded whole, or is no
    causal language model.
    """
    config = config or load_config(name, called)
    require_causal(name, config, called)
    remedy = "give the folder or the hub id of a causal language model"
    demands = ModelDemands(CAUSAL_LM, called, remedy, dtype=dtype, config=config)
    model = load_model(name, demands).model
    check_causal(model, f"{called} from {name}")
    return model


def draw_causal(name: str, config: PreTrainedConfig, called: str) -> PreTrainedModel:
    """The same of random weights, drawn from torch's generator, in float32. Raises TeacherError as that does."""
    require_causal(name, config, called)
    model = draw_model(name, CAUSAL_LM, config, called)
    check_causal(model, f"{called} from {name}")
    return model


def _reads_both_sides(config: PreTrainedConfig) -> bool:
    """True for types of encoders, which AutoModelForCausalLM loads, too, and which see later tokens as they are."""
    return config.model_type in _MASKED and not getattr(config, "is_decoder", False)


def check_causal(model: PreTrainedModel, called: str) -> None:
    """Raise TeacherError if what a model, in eval mode, says of a token depends on a later one.

    ``called``: it in words.
    """
    ids_BL = torch.arange(_PROBE, device=model.device)[None] % model.config.vocab_size
    changed_BL = ids_BL.index_fill(1, ids_BL.new_tensor([_PROBE - 1]), int(ids_BL[0, 0]))
    with torch.inference_mode():
        before_LV, after_LV = (
            model(input_ids=each, attention_mask=torch.ones_like(each)).logits[0, :-1].float()
            for each in (ids_BL, changed_BL)
        )
    # The same numbers are added up, and what is masked is 0: nothing is left to rounding, in 16 bits either.
    if not torch.allclose(before_LV, after_LV, rtol=0, atol=1e-4 * float(before_LV.abs().max())):
        raise TeacherError(
            f"{called}: what {type(model).__name__} says of a token depends on later ones; give a causal language model"
        )
