"""The spelling of tokens, from a tokenizer's files; the tokenizers library alone is enough for that."""

from collections.abc import Iterable
from pathlib import Path

from hskcache.errors import DamageError


class Spelling:
    """Tokens as the tokenizer spells them; of one without a fast form, and of unknown ids, the number.

    ``folder``: of the tokenizer's files. Raises DamageError if they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
        except Exception:  # noqa: BLE001  (the library raises nothing narrower)
            raise DamageError(f"{path} is no tokenizer that can be read; run hskcache verify") from None

    def token(self, token_id: int) -> str:
        """The spelling of one."""
        known = None if self._tokenizer is None else self._tokenizer.id_to_token(token_id)
        return known or str(token_id)

    def tokens(self, token_ids: Iterable[int]) -> list[str]:
        """The spelling of some."""
        return [self.token(token_id) for token_id in token_ids]
