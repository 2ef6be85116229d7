"""A student without a classifier, for general distillation: the base model that task students begin from."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from hskcache.errors import CacheError, MismatchError, TeacherError
from trainer.student.create import STUDENTS, Interface, has_no_weights, seeded, student_config


def create_encoder(source: str, interface: Interface, seed: int = 0) -> PreTrainedModel:
    """An encoder on the CPU in float32, its pooler included where its kind has one; what is not loaded is drawn anew.

    Args:
        source: a key of STUDENTS, a config.json or a folder without weights (random weights), a folder with weights,
            or a hub id. Of a checkpoint with a head, the head is left behind.
        interface: what the student must read; what it says of classes does not count.
        seed: of the random weights; the global generators stay untouched.

    Raises:
        TeacherError: the source cannot be read, or its weights do not fit its config.
        MismatchError: the checkpoint has too small a vocabulary.
    """
    try:
        if source in STUDENTS or has_no_weights(source):
            return _from_shape(source, interface, seed)
        return _from_weights(source, interface, seed)
    except CacheError:
        raise
    except Exception as error:  # each model family raises errors of its own kinds
        reason = " ".join(str(error).split())
        raise TeacherError(f"{source} cannot be loaded as an encoder: {reason:.200}") from error


def _from_shape(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = student_config(source, interface)
    # Back to what a config has by itself and a saved one leaves out: an encoder has no classes.
    config.num_labels, config.problem_type = 2, None
    with seeded(seed):
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    return model.eval()


def _from_weights(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(source)
    if config.vocab_size < interface.vocab_size:
        raise MismatchError(
            f"{source} knows {config.vocab_size} token ids and the tokenizer has {interface.vocab_size}; "
            "a student that starts from weights needs the tokenizer of those weights"
        )
    with seeded(seed):
        model, loading = AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    broken = sorted(name for name in loading["missing_keys"] if "pooler" not in name)
    if broken := broken or sorted(name for name, *_ in loading["mismatched_keys"]):
        raise TeacherError(f"{source} lacks {len(broken)} weights of its own config, {broken[0]} among them")
    encoder: PreTrainedModel = model.eval()
    return encoder
