"""Linears through which the contributions of heads and neurons pass in each layer of an encoder."""

from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from hskcache.encoder import layer_stacks
from hskcache.errors import TeacherError


class Place(NamedTuple):
    """Linears through which the contributions of one layer pass.

    Attributes:
        layer: the module that the names below are of.
        names: of its Linears.
        num_heads: H.
    """

    layer: nn.Module
    names: "Names"
    num_heads: int

    @property
    def heads(self) -> nn.Linear:
        """The attention's output projection; the columns of a head are neighbours."""
        return self.linear(self.names.heads)

    @property
    def neurons(self) -> nn.Linear:
        """The second Linear of the feed-forward network, a column a neuron."""
        return self.linear(self.names.neurons)

    @property
    def head_size(self) -> int:
        """Columns of a head."""
        return self.heads.in_features // self.num_heads

    def linear(self, name: str) -> nn.Linear:
        """One of the layer's Linears."""
        module = self.layer.get_submodule(name)
        assert isinstance(module, nn.Linear)
        return module


class Names(NamedTuple):
    """The Linears of a layer, by name; a layer with others may send contributions elsewhere.

    Attributes:
        heads: the attention's output projection.
        neurons: the second Linear of the feed-forward network.
        attended: query, key and value, whose rows make the heads.
        first: the first Linear of the feed-forward network, whose rows make the neurons.
    """

    heads: str
    neurons: str
    attended: tuple[str, str, str]
    first: str


_BERT = Names(
    "attention.output.dense",
    "output.dense",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "intermediate.dense",
)
_DISTILBERT = Names(
    "attention.out_lin", "ffn.lin2", ("attention.q_lin", "attention.k_lin", "attention.v_lin"), "ffn.lin1"
)


def places(model: PreTrainedModel) -> tuple[Place, ...]:
    """Linears through which the contributions of every layer pass, the first layer first.

    Raises:
        TeacherError: the model is not built as BERT, RoBERTa, ELECTRA or DistilBERT are.
    """
    num_heads = int(model.config.num_attention_heads)
    by_layer = tuple(_place(layer, num_heads) for layer in encoder_layers(model))
    known = [place for place in by_layer if place is not None]
    sizes = {(place.heads.in_features, place.neurons.in_features) for place in known}
    if len(known) < len(by_layer) or len(sizes) != 1 or known[0].heads.in_features % num_heads:
        raise TeacherError(
            f"{type(model).__name__} does not have one output projection and one second feed-forward Linear in each "
            "layer, as BERT, RoBERTa, ELECTRA and DistilBERT have, so its heads and neurons cannot be taken out; give "
            "one of these"
        )
    return tuple(known)


def encoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer layers in the order in which they run.

    Raises:
        TeacherError: the model has no single stack of ``num_hidden_layers`` layers.
    """
    stacks = list(layer_stacks(model).values())
    if len(stacks) != 1:
        raise TeacherError(
            f"{type(model).__name__} has {len(stacks)} stacks of "
            f"{model.config.num_hidden_layers} layers where one was expected; use an "
            "encoder such as BERT, RoBERTa, DistilBERT, ELECTRA or MiniLM"
        )
    return list(stacks[0])


def _place(layer: nn.Module, num_heads: int) -> Place | None:
    linears = {name for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    for names in (_BERT, _DISTILBERT):
        if linears == {names.heads, names.neurons, *names.attended, names.first}:
            return Place(layer, names, num_heads)
    return None
