"""Rows of conversations: a file with one JSON object a line, each with the turns of one."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hskcache.counted import counted
from hskcache.errors import DataError
from hskcache.remarks import remark
from hskcache.text.compressed import format_of, opened
from hskcache.text.examples import Reading
from hskcache.text.language.made import MadeRows
from hskcache.text.language.rows import LanguageRows, RowsWriter
from hskcache.text.language.texts import Progress, fingerprint_of
from hskcache.text.language.turns import Conversation, Turns, UnusableError
from hskcache.text.regular import open_regular, require_same, state_of
from hskcache.text.table import BadRows, Faults, RowPolicy
from hskcache.timeline import span

_SHAPE = 'write {"messages": [{"role": "user", "content": "..."}, ...]}, one object a line'


class _Line(NamedTuple):
    """A line of a file: its number from 1, its bytes, and those of the file that are read with it."""

    number: int
    data: bytes
    num_read: int


def check_chat(path: Path) -> None:
    """Raise DataError, before a model is loaded, if a file of conversations is not there, or is none by its name."""
    open_regular(path).close()
    if format_of(path) != ".jsonl":
        raise DataError(f"{path} is no .jsonl file; {_SHAPE}")


@span("tokenize")
def conversations(
    path: Path, turns: Turns, max_length: int, bad_rows: BadRows = "fail", on_progress: Progress | None = None
) -> LanguageRows:
    """Rows of conversations, each of them one row: all tokens, of which those that some roles say are predicted.

    A row that is too long is cut behind the last of these that it has room for. ``turns``: the template and the roles;
    ``max_length``: tokens of a row at most; ``bad_rows``: what becomes of a line that makes no row; ``on_progress``:
    called with the number of bytes of the file done since the last call. Raises DataError (``FILE line N: ...``) for
    such a line, if the file cannot be read or changes meanwhile, or if no line makes a row.
    """
    faults, writer, digest = Faults(str(path), bad_rows), RowsWriter(max_length, have_targets=True), hashlib.sha256()
    number = 0
    with open_regular(path) as file:
        begun = state_of(file)
        for line in _lines(path):
            if line.data.strip():
                try:
                    ids, targets = turns.tokens(_conversation(line.data))
                    if not writer.add_masked(number, ids, targets):
                        raise _beyond(len(ids), max_length)
                    # The tokens, not the file: a template may write the day into them.
                    digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i4").tobytes() + targets.tobytes())
                except UnusableError as error:
                    faults.add(line.number, error.problem, error.advice)
                number += 1
            if on_progress is not None:
                on_progress(line.num_read)
        require_same(file, begun)
    bad = tuple(sorted(faults.found.items()))
    if not writer.num_documents:
        told = f"; line {bad[0][0]}: {bad[0][1]}" if bad else f"; {_SHAPE}"
        raise DataError(f"{path}: no line makes a row{told}")
    if bad:
        remark(f"{path}: {counted(len(bad), 'bad row')} left out, the first in line {bad[0][0]}: {bad[0][1]}")
    made = MadeRows("conversations", writer.num_documents, writer.num_targets, roles=turns.roles, by=turns.by)
    reading = Reading(unit="line", bad=bad, policy=RowPolicy(bad_rows=bad_rows))
    rows = writer.whole(turns.tokenizer)
    return LanguageRows(rows, str(path), None, fingerprint_of(made, digest.hexdigest()), made, reading)


def _lines(path: Path) -> Iterator[_Line]:
    is_plain = path.suffix.lower() != ".gz"
    with opened(path) as file:
        for number, data in enumerate(file, start=1):
            # Of a compressed file it is not known how much of it that is.
            yield _Line(number, data, len(data) if is_plain else 0)


def _conversation(data: bytes) -> Conversation:
    """The turns of a line. Raises UnusableError if it is no conversation."""
    try:
        value: Any = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnusableError(f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"not JSON ({error})", _SHAPE) from None
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        raise UnusableError("no messages", _SHAPE)
    for turn, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UnusableError(f"turn {turn} has no role", _SHAPE)
        _check_content(message, turn)
    tools = value.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise UnusableError("tools that are no list", "give a list of JSON schemas, or leave them out")
    return Conversation(messages, tools or None)


def _check_content(message: dict[str, Any], turn: int) -> None:
    """Raise UnusableError unless a turn has a text, or tools that are called in its place."""
    content = message.get("content")
    if isinstance(content, list | dict):
        raise UnusableError(f"the content of turn {turn} is a {type(content).__name__} and no text", _SHAPE)
    if not content and not any(value for key, value in message.items() if key not in {"role", "content"}):
        raise UnusableError(f"turn {turn} has no content", _SHAPE)


def _beyond(num_tokens: int, max_length: int) -> UnusableError:
    return UnusableError(
        f"nothing that is to be predicted is among the first {counted(max_length, 'token')} of its {num_tokens:,}",
        f"give --max-length {num_tokens}",
    )
