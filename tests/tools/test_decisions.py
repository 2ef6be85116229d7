"""Every decision has a number of its own, the same in its name and its heading, and a line in the index."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "decisions"
RECORDS = sorted(FOLDER.glob("[!R]*"))
LINE = re.compile(r"^- \[(\d+)\]\(([^)]+)\): \S.*\.$", re.MULTILINE)


def test_numbers_are_those_from_1_on_each_once() -> None:
    assert [int(path.name.partition("-")[0]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_a_record_begins_with_its_number() -> None:
    for path in RECORDS:
        heading = path.read_text(encoding="utf-8").partition("\n")[0]
        assert heading.startswith(f"# {int(path.name[:4])}. "), path.name


def test_the_index_has_a_line_for_every_record_in_order() -> None:
    lines = LINE.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert lines == [(str(number), path.name) for number, path in enumerate(RECORDS, start=1)]
