"""Run a teacher without the heads and neurons that contribute nothing: it computes the same and costs what is left.

A sparse teacher is an ordinary checkpoint with zeros in it, and zeros take as long to multiply as other numbers. Where
nothing but the answer of a teacher is kept, they are left out of its Linears for as long as it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from hskcache.teacher.places import Place, places


@contextmanager
def lean(model: PreTrainedModel) -> Iterator[None]:
    """Leave out heads and neurons whose every outgoing weight is zero.

    What the model answers stays the same but for the rounding of sums; of the heads that are left out no attention is
    to be seen. A model that is built otherwise than BERT or DistilBERT, or has no such zeros, runs as it is.

    Args:
        model: in eval mode; its modules are back in their places afterwards, whatever happens inside.
    """
    replaced: list[tuple[nn.Module, str, nn.Linear]] = []
    try:
        for place in _known(model):
            for name, slim in _slim(place).items():
                path, _, attribute = name.rpartition(".")
                parent = place.layer.get_submodule(path)
                replaced.append((parent, attribute, place.linear(name)))
                setattr(parent, attribute, slim)
        yield
    finally:
        for parent, attribute, linear in replaced:
            setattr(parent, attribute, linear)


def _known(model: PreTrainedModel) -> tuple[Place, ...]:
    try:
        return places(model)
    except TeacherError:
        return ()


def _slim(place: Place) -> dict[str, nn.Linear]:
    """The Linears of a layer, by name, that are smaller without what contributes nothing."""
    names, slim = place.names, dict[str, nn.Linear]()
    heads_H = place.heads.weight.detach().view(-1, place.num_heads, place.head_size).count_nonzero((0, 2)) > 0
    # The shape of attention without any head would be ambiguous.
    heads_H[0] |= not bool(heads_H.any())
    if not bool(heads_H.all()):
        columns = heads_H.repeat_interleave(place.head_size).nonzero()[:, 0]
        slim |= {name: _with_rows(place.linear(name), columns) for name in names.attended}
        slim[names.heads] = _with_columns(place.heads, columns)
    neurons_F = place.neurons.weight.count_nonzero(0) > 0
    if not bool(neurons_F.all()):
        rows = neurons_F.nonzero()[:, 0]
        slim[names.first] = _with_rows(place.linear(names.first), rows)
        slim[names.neurons] = _with_columns(place.neurons, rows)
    return slim


def _with_rows(linear: nn.Linear, index: Tensor) -> nn.Linear:
    bias = None if linear.bias is None else linear.bias.detach()[index]
    return _linear(linear.weight.detach()[index], bias)


def _with_columns(linear: nn.Linear, index: Tensor) -> nn.Linear:
    return _linear(linear.weight.detach()[:, index], None if linear.bias is None else linear.bias.detach())


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    # Not by way of its constructor, which draws weights, and warns where there are none to draw.
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return linear.eval()
