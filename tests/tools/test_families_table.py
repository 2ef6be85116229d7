"""The guide's table of families is what the probe says of them."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    """The group of each family in the guide."""
    text = (ROOT / "data" / "guide" / "teachers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S[^|]*) \| ([^|]+) \|$", text, re.MULTILINE)
    return {family: group for group, families in rows[1:] for family in families.split(", ")}


@pytest.fixture(scope="module")
def probe() -> Iterator[Any]:
    """The benchmark that the table is from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield import_module("benchmarks.families")


@pytest.mark.parametrize(
    "family", ["bert", "modernbert", "albert", "mpnet", "deberta-v2", "mra", "longformer", "yoso", "llama"]
)
def test_a_family_stands_where_the_probe_puts_it(family: str, page: dict[str, str], probe: Any) -> None:
    assert probe.group(probe.seen(family, CLASSES[family])) == page[family]


def test_every_family_of_this_version_is_in_the_table_once(page: dict[str, str]) -> None:
    text = (ROOT / "data" / "guide" / "teachers.md").read_text(encoding="utf-8")
    measured = re.search(r"transformers (\d+\.\d+)", text)
    assert measured is not None
    assert len(page) > 100
    if transformers.__version__.startswith(measured[1]):
        assert page.keys() == CLASSES.keys()
