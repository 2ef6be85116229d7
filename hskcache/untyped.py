"""BERTs from the time before configurations named their type; TinyBERT's authors publish theirs so."""

from functools import cache
from typing import TYPE_CHECKING

from hskcache import console

if TYPE_CHECKING:
    from transformers import BertConfig

# Entries that together only configurations of BERT and its kin have.
_OF_BERT = frozenset(
    {"hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "type_vocab_size", "vocab_size"}
)


def untyped_bert(name: str) -> "BertConfig | None":
    """The configuration of a model whose config.json names no ``model_type`` and is that of a BERT; None of any other.

    Whether it is one shows when its weights are placed: those of another kind find none. ``name``: a folder, a
    config.json, or a hub id, for which :func:`hskcache.hub.looked_up` has been asked.
    """
    from transformers import BertConfig, PreTrainedConfig

    try:
        given, _ = PreTrainedConfig.get_config_dict(name)
    except (OSError, ValueError):
        return None
    saved_as = given.get("architectures") or []
    if "model_type" in given or not given.keys() >= _OF_BERT or not all("Bert" in kind for kind in saved_as):
        return None
    _tell(name)
    return BertConfig.from_dict(given)


@cache
def _tell(name: str) -> None:
    """Say it once: a command reads the configuration several times."""
    console.say(f"{name}: its config.json names no model_type; it is read as a BERT")
