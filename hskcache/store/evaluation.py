"""Scores of a cache's teacher on rows that the cache does not hold, kept in manifests without being digested."""

from pydantic import ConfigDict
from pydantic import Field as Key

from hskcache.store.record import Sha256
from hskcache.strict import Strict


class Evaluation(Strict):
    """The metrics of the teacher on labelled rows, such as a development set.

    Attributes:
        data: name of the rows' source, told to readers.
        fingerprint: of the rows, their labels and the order of the classes.
        num_rows: how many they are.
        max_length: tokens of a row at most.
        metrics: by name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    data: str
    fingerprint: Sha256
    num_rows: int = Key(ge=1)
    max_length: int = Key(ge=1)
    metrics: dict[str, float] = Key(min_length=1)

    def is_of(self, fingerprint: str, max_length: int) -> bool:
        """True if it is of these rows, cut at this length."""
        return (self.fingerprint, self.max_length) == (fingerprint, max_length)
