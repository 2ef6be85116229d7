"""Models from folders and the hub: loaded in one place, so that nothing of them is lost or drawn anew unseen."""

from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import cached_file

from hskcache.classes import is_tagger
from hskcache.errors import CacheError, TeacherError
from hskcache.hub import divided, is_path, looked_up
from hskcache.model.adapter import base_of, is_adapter, merge, num_outputs, require_mergeable
from hskcache.model.judge import Judged, judge
from hskcache.model.weights import fault, weights_file
from hskcache.runtime import quiet
from hskcache.spec import ComputeDtype
from hskcache.untyped import untyped_bert


class ModelKind(NamedTuple):
    """A kind of model: what transformers loads it with, and its name in words."""

    auto: Any
    word: str


CLASSIFIER = ModelKind(AutoModelForSequenceClassification, "classifier")
TAGGER = ModelKind(AutoModelForTokenClassification, "tagger")
ENCODER = ModelKind(AutoModel, "plain encoder")
MASKED_LM = ModelKind(AutoModelForMaskedLM, "masked LM")
CAUSAL_LM = ModelKind(AutoModelForCausalLM, "causal language model")


@dataclass(frozen=True)
class ModelDemands:
    """Demands on a model that is to be loaded.

    Attributes:
        called: it in words, for messages: "a teacher".
        remedy: what to do about a checkpoint that lacks the head.
        new_head: whether a head that the checkpoint lacks may be drawn anew.
        config: in place of the checkpoint's own.
    """

    kind: ModelKind
    called: str
    remedy: str = ""
    new_head: bool = False
    dtype: ComputeDtype = "float32"
    config: PreTrainedConfig | None = None


def answering(config: PreTrainedConfig) -> ModelKind:
    """The kind of a checkpoint that answers for rows, or for each token of them, by its configuration."""
    return TAGGER if is_tagger(config) else CLASSIFIER


class Loaded(NamedTuple):
    """A model in eval mode on the CPU, and what of it was drawn anew."""

    model: PreTrainedModel
    drawn: Judged


def load_model(name: str, demands: ModelDemands) -> Loaded:
    """Load a model whole, or refuse it in a sentence.

    ``name``: a folder with weights, or a hub id; no code of the model's is run. Raises TeacherError if it cannot be
    read, holds no weights, needs code of its own, or is not wholly what is wanted.
    """
    if is_adapter(name):
        return _load_adapter(name, demands)
    if Path(name).is_dir():
        require_weights(name, demands.called)
    config = demands.config or load_config(name, demands.called)
    _refuse_own_code(name, config, demands)
    _refuse_quantised(name, config, demands)
    repository, within = divided(name)
    with looked_up(name):
        try:
            with quiet():
                model, loading = demands.kind.auto.from_pretrained(
                    repository,
                    **within,
                    config=config,
                    dtype=getattr(torch, demands.dtype),
                    output_loading_info=True,
                    # Shapes that differ are judged below: the library's own error points to a report that nobody sees.
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                )
        except Exception as error:  # noqa: BLE001  (a damaged file makes each of the libraries below raise its own kind)
            raise _refusal(name, demands.called, error) from None
    drawn = judge(name, model, loading, demands)
    _own_storage(model)
    return Loaded(model.eval(), drawn)


def _load_adapter(name: str, demands: ModelDemands) -> Loaded:
    """A base with its adapter merged into it; a head that the base lacks, or has in another size, comes with that."""
    require_mergeable(name, demands.called)
    config = demands.config or load_config(name, demands.called)
    any_head = demands.new_head or demands.kind is CLASSIFIER
    base, drawn = load_model(base_of(name), replace(demands, new_head=any_head, config=config))
    merged, brought = merge(name, base)
    _own_storage(merged)
    new = tuple(key for key in drawn.new if not key.endswith(brought))
    resized = tuple(entry for entry in drawn.resized if not entry.name.endswith(brought))
    lacking = [*new, *(entry.name for entry in resized)]
    if lacking and demands.kind is CLASSIFIER and not demands.new_head:
        raise TeacherError(f"{name} and its base lack weights of a classifier ({lacking[0]}); {demands.remedy}")
    return Loaded(merged.eval(), Judged(new, resized))


def load_again(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A model of this class that was saved before, whole; it attends as ``model`` does.

    Raises TeacherError if the folder does not hold what was saved.
    """
    again = load_model(str(folder), ModelDemands(ModelKind(type(model), "model"), "the student")).model
    again.set_attn_implementation(model.config._attn_implementation)
    return again


def draw_model(name: str, kind: ModelKind, config: PreTrainedConfig, called: str) -> PreTrainedModel:
    """A model of random weights, drawn from torch's generator: in eval mode on the CPU, in float32.

    ``name``: where the configuration is from, for an error. Raises TeacherError if the configuration gives no such
    model.
    """
    try:
        model: PreTrainedModel = kind.auto.from_config(config, dtype=torch.float32)
    except Exception as error:  # noqa: BLE001  (each model family raises errors of its own kinds)
        raise _refusal(name, called, error) from None
    return model.eval()


def load_config(name: str, called: str) -> PreTrainedConfig:
    """The configuration of a folder, a config.json or a hub id. Raises TeacherError if it cannot be read."""
    if is_path(name) and not Path(name).exists():
        # Asked for such a path, transformers would look for it on the hub.
        raise TeacherError(f"cannot load {called} from {name}: there is no such folder; give one, or a hub id")
    outputs = None
    if is_adapter(name) and not (Path(name) / "config.json").is_file():
        name, outputs = base_of(name), num_outputs(name)
    with looked_up(name):
        try:
            with quiet():
                config = _config(name)
        except Exception as error:  # noqa: BLE001  (each model family raises errors of its own kinds)
            raise _refusal(name, called, error) from None
    if outputs not in {None, config.num_labels}:
        config.num_labels = outputs
    return config


def _config(name: str) -> PreTrainedConfig:
    repository, within = divided(name)
    try:
        return AutoConfig.from_pretrained(repository, **within, trust_remote_code=False)
    except ValueError:
        if (config := untyped_bert(name)) is None:
            raise
        return config


def folder_of(name: str, also: str) -> Path | None:
    """Folder with the files of a model: its own, or the one in which the hub's library keeps what it has fetched.

    ``name``: as the user gave it; a model of the hub has been loaded before. ``also``: a file that is fetched from the
    hub, too, where it is there. Returns None of a name that is neither.
    """
    if Path(name).exists():
        return Path(name) if Path(name).is_dir() else None
    kinds = ("gated_repo", "missing_entries", "connection_errors")
    repository, within = divided(name)
    settings = {**within, **{f"_raise_exceptions_for_{kind}": False for kind in kinds}}
    with looked_up(name):
        cached_file(repository, also, **settings)
        config = cached_file(repository, "config.json", **settings)
    return None if config is None else Path(config).parent


def require_weights(name: str, called: str) -> None:
    """Raise TeacherError if the weights of a folder cannot be read, or it has none; says what to do."""
    folder = Path(name)
    if (reason := fault(folder)) is not None:
        raise TeacherError(f"cannot load {called} from {name}: {reason}")
    if weights_file(folder) is None:
        raise TeacherError(f"cannot load {called} from {name}: it has no weights; give the folder of a trained model")


def _refuse_own_code(name: str, config: PreTrainedConfig, demands: ModelDemands) -> None:
    """Refuse a model whose class is code beside its weights, unless transformers has a class of that name."""
    mapped: dict[str, Any] = getattr(config, "auto_map", None) or {}
    for auto in (demands.kind.auto, AutoModel):
        own = str(mapped.get(auto.__name__) or "").rpartition(".")[2]
        if own and own not in dir(transformers):
            raise TeacherError(
                f"cannot load {demands.called} from {name}: it needs code of its own ({mapped[auto.__name__]}, by "
                "auto_map in its config.json), and no code of a model's is run; give a model of a class of transformers"
            )


def _refuse_quantised(name: str, config: PreTrainedConfig, demands: ModelDemands) -> None:
    """Refuse weights of few bits: layers of other libraries hold them, of which nothing here is proven."""
    if found := getattr(config, "quantization_config", None):
        method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
        # An enumeration in one version, a word in another.
        word = getattr(method, "value", method) or "quantization_config"
        raise TeacherError(
            f"cannot load {demands.called} from {name}: its weights are quantised ({word}, by its config.json); give "
            "the checkpoint that they were made from"
        )


def _refusal(name: str, called: str, error: Exception) -> TeacherError:
    reason = " ".join(str(error).split())
    if isinstance(error, CacheError):
        return TeacherError(reason)
    if "trust_remote_code" in reason:
        reason = "it needs code of its own, and no code of a model's is run; give a model of a class of transformers"
    if "above report" in reason:
        reason = "its weights cannot be brought into the form that this version of transformers reads"
    return TeacherError(f"cannot load {called} from {name}: {shorten(reason, 200)}")


def _own_storage(model: nn.Module) -> None:
    """Give each weight memory of its own.

    Where transformers splits a fused weight, the parts are views of one storage, and safetensors refuses to save such.
    Weights that are tied are one parameter, and stay so.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.numel() * tensor.element_size() != tensor.untyped_storage().nbytes():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
