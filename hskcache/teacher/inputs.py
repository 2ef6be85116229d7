"""Inputs that a teacher can read: token types, positions and token ids, and the tokenizer that makes them."""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.counted import counted
from hskcache.cut import tell_beyond
from hskcache.encoder import num_positions, takes_token_types, trained_length
from hskcache.errors import CacheError, TeacherError
from hskcache.store.tokenizer import tokenizer_digest
from hskcache.text import TokenizedRows

MAX_POSITIONS = 1 << 16
"""Positions are stored in 16 bits."""

_BLOCK_TOKENS = 1 << 20
_CONFIG = "tokenizer_config.json"
# Where a tokenizer was loaded from says nothing of what it does, and the same files must have the same digest.
_NOT_IDENTITY = ("name_or_path", "is_local", "local_files_only", "_commit_hash")


def most_tokens(model: PreTrainedModel) -> int:
    """The longest row that the model reads and a cache can hold, in tokens."""
    return min(num_positions(model) or MAX_POSITIONS, MAX_POSITIONS)


def fit_rows(
    model: PreTrainedModel, rows: TokenizedRows, names: tuple[str, str], in_windows: bool = False, further: str = ""
) -> TokenizedRows:
    """Rows as the teacher reads them: without token types if it takes none.

    Args:
        model: the teacher.
        rows: through the teacher's tokenizer.
        names: of the teacher and of the data, for messages.
        in_windows: whether it reads long rows in windows.
        further: what else may be done about rows that are too long.

    Raises:
        TeacherError: a row is longer than the teacher's positions, or holds an id or a type outside its tables.
    """
    teacher, source = names
    limit, longest = MAX_POSITIONS if in_windows else most_tokens(model), int(rows.lengths.argmax())
    if rows.lengths[longest] > limit:
        raise TeacherError(
            f"{source} row {longest}, counted from 0, has {counted(rows.lengths[longest], 'token')} and "
            f"{teacher} reads at most "
            f"{limit}; build with --max-length {limit}{further}"
        )
    if not in_windows:
        tell_beyond(int(rows.lengths[longest]), trained_length(model), source, teacher)
    embeddings = model.get_input_embeddings()
    _check_table("token id", rows, rows.input_ids, (embeddings.num_embeddings, *names))
    if rows.token_type_ids is None:
        return rows
    if not takes_token_types(model):
        return replace(rows, token_type_ids=None)
    _check_table("token type", rows, rows.token_type_ids, (model.config.type_vocab_size, *names))
    return rows


def _check_table(what: str, rows: TokenizedRows, values: NDArray[np.integer], table: tuple[int, str, str]) -> None:
    size, teacher, source = table
    # Not argmax, which would copy the ids of a corpus from the disk into memory.
    if int(values.max()) < size:
        return
    for first in range(0, len(values), _BLOCK_TOKENS):
        places = np.flatnonzero(values[first : first + _BLOCK_TOKENS] >= size)
        if not len(places):
            continue
        place = first + int(places[0])
        row = int(np.searchsorted(rows.offsets, place, side="right")) - 1
        raise TeacherError(
            f"{source} row {row}, counted from 0, has the {what} {values[place]} and {teacher} knows {size}, counted "
            "from 0; put the tokenizer it was trained with beside it"
        )


@dataclass(frozen=True)
class SavedTokenizer:
    """The files of a tokenizer.

    Attributes:
        files: content by path within the tokenizer's folder.
        sha256: digest over them.
    """

    files: dict[str, bytes]
    sha256: str


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, with_token_types: bool) -> SavedTokenizer:
    """A tokenizer as it stands in a cache: the same whatever folder it came from and whatever it did before.

    Args:
        tokenizer: a fast tokenizer.
        with_token_types: False makes it give none, as its rows have none.

    Raises:
        CacheError: the temporary folder it is written to by way of has no room.
    """
    # Truncation and padding of the last call would be saved along.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    with tempfile.TemporaryDirectory(prefix="hskcache-") as temporary:
        folder = Path(temporary)
        _save(tokenizer, folder)
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        config = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
        if not with_token_types:
            config["model_input_names"] = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / _CONFIG).write_text(text, encoding="utf-8")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return SavedTokenizer(files, tokenizer_digest(folder))


def _save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001  (the Rust library raises plain Exception for what the disk says)
        raise CacheError(f"cannot write the tokenizer to {folder}: {error}; free space there, or set TMPDIR") from None
