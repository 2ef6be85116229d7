"""Findings of an audit, as programs read them."""

import math

from pydantic import computed_field

from hskcache.audit.kinds import AUDITED
from hskcache.audit.measure import Audited, Measured
from hskcache.strict import Strict

_MOST_NAMED = 10


class Layer(Strict):
    """Findings about one layer of a field.

    Attributes:
        layer: teacher layer; None for logits.
        num_nonfinite: of these, NaN or infinite here or there.
        max_abs, mean_abs: largest and mean absolute error.
        cosine: mean cosine between a stored vector and the teacher's; None where all are zeros.
        kl: mean Kullback-Leibler divergence, in nats, of the softmax of the stored scores from that of the teacher's,
            of final states after the head; None of hidden states, of single scores and of draws.
        bound: the largest error that the encoding alone allows one of the values.
        excess: the largest error as a share of what is allowed there, tolerance included; None: not finite.
        same_positions, same_columns: share that the teacher would choose again; None where all are kept.
        same_first: share of positions whose likeliest token is that of what is stored; None of draws and other kinds.
        log_z_error: largest absolute error of the log of the sum of exp of the logits; None but of next tokens.
        num_wrong: rows with positions or columns that are not among the best, or with positions not best first.
        num_bad_rows: rows with a wrong choice or an error beyond what is allowed.
        bad_rows: these, the worst first, at most ten of them.
    """

    field: str
    kind: str
    layer: int | None
    encoding: str
    num_values: int
    num_nonfinite: int
    max_abs: float
    mean_abs: float
    cosine: float | None
    kl: float | None
    bound: float
    excess: float | None
    same_positions: float | None
    same_columns: float | None
    same_first: float | None = None
    log_z_error: float | None = None
    num_wrong: int
    num_bad_rows: int
    bad_rows: list[int]


class Identity(Strict):
    """Agreement of the teacher's identity with the one that some fields tell.

    Attributes:
        same_weights: whether the digests of the weights agree.
        same_tokenizer: whether it cuts text into the tokens of the cache: the digest of its files for the cache's own
            fields, its vocabulary for added ones.
        config: where the configurations differ, if they do; alone it is no fault, since versions of transformers write
            down different keys.
    """

    fields: list[str]
    same_weights: bool
    same_tokenizer: bool
    config: str | None


class AuditReport(Strict):
    """The outcome of an audit.

    Attributes:
        num_rows: rows that the teacher ran over.
        num_skipped: rows of the cache that were not drawn from, because a field has left them out.
        identities: one for each teacher that the fields are of.
        layers: one for each layer of each field.
    """

    num_rows: int
    num_skipped: int
    tolerance: float
    identities: list[Identity]
    layers: list[Layer]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """True if the teacher is the cache's and every row holds what it gives."""
        known = all(identity.same_weights and identity.same_tokenizer for identity in self.identities)
        return known and not any(layer.num_bad_rows for layer in self.layers)


def found(name: str, audited: Audited, layer: int | None, measured: Measured) -> Layer:
    """One layer of the field of a name, once all rows are compared."""
    field, distance = audited.kept, measured.distance
    chooses = AUDITED[field.kind].chooses(field)
    worst = sorted(measured.rows, key=lambda row: (-measured.rows[row], row))
    return Layer(
        field=name,
        kind=field.kind,
        layer=layer,
        encoding=AUDITED[field.kind].stored_as(field),
        **distance.figures,
        bound=measured.bound,
        excess=measured.excess if math.isfinite(measured.excess) else None,
        same_positions=None if field.keeps_all else measured.positions.share,
        same_columns=measured.columns.share if chooses else None,
        same_first=measured.first.share if measured.first.here else None,
        log_z_error=measured.log_z_error,
        num_wrong=measured.num_wrong,
        num_bad_rows=len(measured.rows),
        bad_rows=worst[:_MOST_NAMED],
    )
