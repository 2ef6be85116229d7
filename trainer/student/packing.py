"""Proof that a student reads rows that stand behind one another in a sequence as it reads each alone."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import MismatchError
from hskcache.inference import evaluating
from hskcache.rounding import is_close

_LENGTHS = (5, 3, 6)


def check_packing(student: PreTrainedModel, name: str) -> None:
    """Raise MismatchError unless a causal student sees by ``position_ids`` that begin anew where a row begins.

    ``name``: what to call the student.
    """
    size = int(student.config.get_text_config().vocab_size)
    rows = [torch.arange(length) * 7 % size for length in _LENGTHS]
    with evaluating(student), torch.inference_mode():
        alone = torch.cat([_states(student, row)[0] for row in rows])
        packed = _states(student, torch.cat(rows), torch.cat([torch.arange(length) for length in _LENGTHS]))[0]
    if not is_close(packed, alone):
        raise MismatchError(
            f"{name} ({type(student).__name__}) lets rows in one sequence see each other; leave --pack out"
        )


def _states(student: PreTrainedModel, ids_L: Tensor, positions_L: Tensor | None = None) -> Tensor:
    """Last hidden states [1, L, D], as the student's loss has them."""
    told = {} if positions_L is None else {"position_ids": positions_L[None].to(student.device)}
    output = student(ids_L[None].to(student.device), **told, output_hidden_states=True, use_cache=False)
    states: Tensor = output.hidden_states[-1]
    return states
