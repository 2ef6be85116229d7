"""A student without a classifier, for general distillation: the base model that task students begin from."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from trainer.student.create import (
    STUDENTS,
    Interface,
    check_vocabulary,
    has_no_weights,
    one_line,
    refuse_lacking,
    seeded,
    student_config,
)


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
    with one_line(source, "an encoder"):
        if source in STUDENTS or has_no_weights(source):
            return _from_shape(source, interface, seed)
        return _from_weights(source, interface, seed)


def _from_shape(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = student_config(source, interface)
    # Back to what a config has by itself and a saved one leaves out: an encoder has no classes.
    config.num_labels, config.problem_type = 2, None
    with seeded(seed):
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    return model.eval()


def _from_weights(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(source)
    check_vocabulary(source, config, interface)
    with seeded(seed):
        model, loading = AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    refuse_lacking(source, [*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])])
    encoder: PreTrainedModel = model.eval()
    return encoder
