"""A student without a classifier, for general distillation: the base model that task students begin from."""

from transformers import PreTrainedModel

from hskcache.model.load import ENCODER, ModelDemands, draw_model, load_config, load_model
from trainer.student.create import Interface, check_vocabulary, seeded, student_config
from trainer.student.origin import has_no_weights
from trainer.student.token_types import copy_untrained


def create_encoder(source: str, interface: Interface, seed: int = 0) -> PreTrainedModel:
    """An encoder on the CPU in float32, its pooler included where its kind has one; what is not loaded is drawn anew.

    Raises TeacherError if the source cannot be read, or its weights do not fit its config; MismatchError if the
    checkpoint has too small a vocabulary.

    Args:
        source: a key of STUDENTS, a config.json or a folder without weights (random weights), a folder with weights,
            or a hub id. A folder wins over a key of the same name.
            Of a checkpoint with a head, the head is left behind.
        interface: what the student must read; what it says of classes does not count.
        seed: of the random weights; the global generators stay untouched.
    """
    if has_no_weights(source):
        return _from_shape(source, interface, seed)
    config = load_config(source, "a student")
    check_vocabulary(source, config, interface)
    with seeded(seed):
        model = load_model(source, ModelDemands(ENCODER, "a student", config=config)).model
    copy_untrained(model, source, interface.reads_pairs)
    return model


def _from_shape(source: str, interface: Interface, seed: int) -> PreTrainedModel:
    config = student_config(source, interface)
    # Back to what a config has by itself and a saved one leaves out: an encoder has no classes.
    config.num_labels, config.problem_type = 2, None
    with seeded(seed):
        return draw_model(source, ENCODER, config, "a student")
