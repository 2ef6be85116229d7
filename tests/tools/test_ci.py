"""What CI runs by name is there: a test that moved would otherwise end the run with "no tests ran"."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_that_ci_names_exists() -> None:
    named = re.findall(r"(?:tests|tools)/[\w./-]+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []
