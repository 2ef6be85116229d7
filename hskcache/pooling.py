"""One vector of a row from its last hidden states: pooled over its real tokens, led on, cut and divided by its length.

The definitions are those of sentence-transformers' modules Pooling, Dense and Normalize, which teachers and students
that are embedders consist of ["Sentence-BERT", Reimers and Gurevych, 2019, section 3].
"""

from collections.abc import Callable
from typing import assert_never

from torch import Tensor
from torch.nn import functional as F

from hskcache.spec import PoolingName


def pooled(states_BLD: Tensor, valid_BL: Tensor, pooling: PoolingName) -> Tensor:
    """A vector of each row, float32 [B, D].

    Args:
        states_BLD: last hidden states, of any float.
        valid_BL: bool, the real tokens, which begin at the first position; at least one a row.
        pooling: which of them count, see :class:`~hskcache.spec.Embedding`.
    """
    states_BLD = states_BLD.float()
    match pooling:
        case "cls":
            return states_BLD[:, 0]
        case "mean":
            # Filled, not multiplied by 0: whatever stands in the padding, it must not reach the sum.
            return states_BLD.masked_fill(~valid_BL[..., None], 0.0).sum(1) / valid_BL.sum(1, keepdim=True)
        case "max":
            return states_BLD.masked_fill(~valid_BL[..., None], float("-inf")).amax(1)
        case "last":
            last_B = valid_BL.sum(1) - 1
            return states_BLD.gather(1, last_B[:, None, None].expand(-1, 1, states_BLD.shape[2]))[:, 0]
        case unknown:
            assert_never(unknown)


def finished(
    pooled_BD: Tensor, head: Callable[[Tensor], Tensor] | None, num_dims: int | None, normalized: bool
) -> Tensor:
    """Embeddings of pooled vectors, float32 [B, W].

    Args:
        pooled_BD: float32.
        head: what leads a vector on, as a Dense does; None: nothing.
        num_dims: W, the first values to keep; None keeps all.
        normalized: whether each is divided by its length in the end; one of length 0 stays.
    """
    vectors_BW = pooled_BD if head is None else head(pooled_BD)
    vectors_BW = vectors_BW[:, :num_dims]
    return F.normalize(vectors_BW, dim=-1) if normalized else vectors_BW
