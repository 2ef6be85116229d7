"""End of a language model that learns: its final states, and the head over them with its gradients."""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.errors import MismatchError, TeacherError
from hskcache.inference import evaluating
from hskcache.output_head import OutputHead, find_head


class Final(NamedTuple):
    """States [B, L, D] that go into a student's head, and the head itself."""

    states_BLD: Tensor
    head: OutputHead


def student_head(student: PreTrainedModel) -> OutputHead | None:
    """Head by which a student says next tokens, proven on a few tokens; None of a student that says none.

    Its tensors are the student's own, with gradients. Raises MismatchError if the student makes its logits otherwise
    than by a product with output embeddings, a scale and a soft cap.
    """
    if not student.can_generate():
        return None
    try:
        with evaluating(student):
            found = find_head(student)
    except TeacherError:
        found = None
    if found is None:
        raise MismatchError(
            f"{type(student).__name__} makes its logits otherwise than by output embeddings, a scale and a soft cap, "
            "so that its next tokens cannot be learned; take a student of another kind"
        )
    return live(found, student)


def live(head: OutputHead, student: PreTrainedModel) -> OutputHead:
    """The head with the student's own weights as they stand now."""
    linear = student.get_output_embeddings()
    assert isinstance(linear, nn.Linear)
    return replace(head, weight_VD=linear.weight, bias_V=linear.bias)
