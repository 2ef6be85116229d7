"""A language model and prompts for tests of a teacher in the loop; some here have teachers of their own."""

import json
from pathlib import Path

import pytest
from language_models import language_model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("teacher") / "llama")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [
        {"prompt": f"What is {one}? ", "answer": f"It is {one * one}, and no other."[: 9 + one]} for one in range(11)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
