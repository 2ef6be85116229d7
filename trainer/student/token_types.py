"""Token types that a student was never trained on, where it comes to rows that have them.

General distillation on single texts leaves the embedding of token type 1 where it was drawn, but for weight decay. A
copy of type 0, which was trained, is nearer to what the teacher makes of second texts (measured by tools/bench pairs).
"""

import torch
from transformers import PreTrainedModel

from trainer.student.origin import has_no_weights, has_one_type

_TABLE = "token_type_embeddings"


def copy_untrained(model: PreTrainedModel, source: str, reads_pairs: bool) -> None:
    """Let every token type begin as type 0, in place, if pairs come to a student that has seen single texts alone.

    ``source``: that it was loaded from; what is remembered beside it tells. Raises DamageError if what is remembered
    cannot be read.
    """
    if not reads_pairs or not has_one_type(source):
        return
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(_TABLE) and isinstance(module, torch.nn.Embedding):
                module.weight[1:] = module.weight[0]


def token_types_after(source: str, has_task: bool, reads_pairs: bool) -> int | None:
    """Number of token types to remember of a student, see :class:`~hskcache.text.remembered.Remembered`.

    ``has_task``: whether the rows that it learned from have one; ``reads_pairs``: whether they were pairs. Raises
    DamageError if what is remembered beside its source cannot be read.
    """
    if reads_pairs:
        return None
    if has_no_weights(source):
        return None if has_task else 1
    return 1 if has_one_type(source) else None
