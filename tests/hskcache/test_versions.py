"""Versions are told with their local parts, whatever the metadata of a wheel say, and compared so."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.version import Version

from hskcache.runtime import environment
from hskcache.versions import is_same, version_of


def test_the_local_part_is_told_where_the_metadata_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch from PyPI: its metadata say 2.13.0, itself 2.13.0+cu130."""
    (tmp_path / "accelerated.py").write_text('class V(str): pass\n__version__ = V("2.13.0+cu130")\n')
    (tmp_path / "accelerated-2.13.0.dist-info").mkdir()
    (tmp_path / "accelerated-2.13.0.dist-info" / "METADATA").write_text("Name: accelerated\nVersion: 2.13.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert version("accelerated") == "2.13.0"
    told = version_of("accelerated")
    assert told == "2.13.0+cu130"
    assert type(told) is str


def test_every_package_that_computes_is_told_with_the_version_it_says_of_itself() -> None:
    told = environment(torch.device("cpu"))
    assert told.keys() == {"hskcache", "torch", "transformers", "tokenizers", "numcodecs", "numpy", "device"}
    assert Version(told["torch"]).local == Version(torch.__version__).local
    for name in told.keys() - {"device"}:
        assert Version(told[name]).public == Version(version(name)).public, name
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("told", "here", "same"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0", "2.13.0+cu130", True),
        ("2.13.0+cpu", "2.13.0+cu130", False),
        ("2.13.0+cpu", "2.13.0", False),
        ("2.13.0", "2.13.1+cpu", False),
        ("", "2.13.0", False),
    ],
)
def test_a_version_without_its_local_part_may_be_any_of_them(told: str, here: str, same: bool) -> None:
    assert is_same(told, here) == same
