"""Files of other people that a few tests read where they are there: GLUE, WikiText-2, GloVe.

Every format is tested with small samples of our own; with these files it is seen that the samples are like them.
"""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared"


def real_file(variable: str, folder: str, name: str) -> Path:
    """A file in the folder that an environment variable names, else in ``../shared/FOLDER``; skips where it is not."""
    path = Path(os.environ.get(variable) or BESIDE / folder) / name
    if not path.is_file():
        pytest.skip(f"no {path}: put the real {name} there, or set {variable} to a folder that has it")
    return path.resolve()
