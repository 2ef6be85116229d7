"""Messages that the guide explains are messages that the programs print."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "data" / "guide" / "troubleshooting.md"


def strings() -> list[str]:
    """Every string of the source, with three dots for what is put into it."""
    found = []
    for package in ("hskcache", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_every_message_that_is_explained_is_one_that_is_printed() -> None:
    messages = re.findall(r"^\*\*(.+?)\*\*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(messages) > 10
    known = strings()
    assert [message for message in messages if not any(message in one for one in known)] == []
