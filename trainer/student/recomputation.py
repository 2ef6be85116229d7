"""Gradient checkpointing of a student: inner values of a layer are computed again on the way back, not kept."""

from transformers import PreTrainedModel

from hskcache.errors import MismatchError


def recompute_layers(student: PreTrainedModel, name: str) -> None:
    """Let a student in training keep the input of each layer alone, and compute what is inside again for gradients.

    Values, gradients and dropout stay what they are, and a step takes one more forward pass through the layers
    ["Training Deep Nets with Sublinear Memory Cost", Chen et al., 2016, arXiv 1604.06174]. In eval mode nothing is
    different.

    Args:
        student: any model of transformers.
        name: what to call it.

    Raises:
        MismatchError: the class of the student cannot.
    """
    # Later versions of transformers call it so, and warn of the other name.
    enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise MismatchError(
            f"{name} ({type(student).__name__}) has no gradient checkpointing; leave --gradient-checkpointing out, and "
            "give --gradient-accumulation to take less memory"
        ) from None
    # Without reentrance no layer needs an input with a gradient: frozen embeddings stay as they are.
    student.disable_input_require_grads()
