"""The classifier of a checkpoint in the order of the task's classes: rows move, meanings stay."""

from collections.abc import Collection, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from hskcache.classes import are_counted, order_between
from hskcache.counted import counted
from hskcache.errors import MismatchError, TeacherError
from hskcache.remarks import remark


def keep_meaning(
    model: PreTrainedModel, source: str, names: tuple[Sequence[str], Sequence[str]], drawn: Collection[str] = ()
) -> None:
    """Put the rows of a loaded classifier into another order of the same classes, in place.

    Classes without names, and names that are none of those wanted, are taken to be in the order that is wanted; of the
    latter a line tells. Raises MismatchError if the names are the same in part; TeacherError if they must move, and it
    cannot be told which rows of which parameters they are.

    Args:
        model: a sequence classifier of as many classes as are wanted.
        names: the classes as its checkpoint names them, and as they are wanted, in the order of the outputs.
        drawn: parameters that its checkpoint lacks: a classifier that is drawn anew has no meaning yet.
    """
    had, wanted = names
    if len(had) != len(wanted) or any(not name.startswith(_encoder(model)) and "pooler" not in name for name in drawn):
        return
    try:
        order = order_between(had, wanted)
    except MismatchError as error:
        raise MismatchError(f"{source}: {error}; correct id2label in its config.json") from None
    if order is None:
        if not are_counted(had):
            remark(f"the classes {', '.join(had)} of {source} are taken for {', '.join(wanted)}, in order")
        return
    if order == tuple(range(len(order))):
        return
    index = torch.tensor(order)
    with torch.no_grad():
        for parameter in classifier_of(model, source).parameters(recurse=False):
            parameter.copy_(parameter[index.to(parameter.device)])


def classifier_of(model: PreTrainedModel, source: str) -> nn.Linear:
    """The last layer of a sequence classifier: the one linear layer beside the encoder with a row for each class.

    Raises TeacherError if there is none, or more than one may be it.
    """
    count = int(model.config.num_labels)
    beside = {
        id(module): module
        for name, module in model.named_modules()
        if not f"{name}.".startswith(_encoder(model))
        and any(len(parameter) == count for parameter in module.parameters(recurse=False) if parameter.dim())
    }
    linears = [module for module in beside.values() if isinstance(module, nn.Linear)]
    if len(beside) != 1 or len(linears) != 1:
        raise TeacherError(
            f"{source} has its classes in another order, and of {type(model).__name__} it cannot be told which of "
            f"{counted(len(beside), 'layer')} holds a row for each of them; fine-tune a model without a "
            "classifier instead"
        )
    return linears[0]


def _encoder(model: PreTrainedModel) -> str:
    return f"{model.base_model_prefix}."
