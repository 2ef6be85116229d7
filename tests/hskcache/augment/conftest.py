"""A tiny masked LM beside its tokenizer, and word vectors whose neighbours can be told by looking."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hskcache.augment import Augmentation, Chance, Proposer, WordVectors, eligible, load_vectors, open_source
from hskcache.augment.masked_lm import MaskedLM, load_masked_lm
from hskcache.text.layout import Layout

# Angles in degrees: the nearer two words, the nearer their angles.
ANGLES = {"patient": 0, "calm": 10, "quiet": 20, "dull": 50, "charming": 90, "lovely": 97, "sweet": 111, "table": 180}

SST2 = Layout("sst2", None, None, None, None)


@pytest.fixture(scope="session")
def lm(masked_lm_dir: Path) -> MaskedLM:
    return load_masked_lm(str(masked_lm_dir), "cpu")


@pytest.fixture(scope="session")
def texts(tsv_file: Path) -> list[str]:
    """96 short sentences of several lengths."""
    return [line.split("\t")[0] for line in tsv_file.read_text(encoding="utf-8").splitlines()[1:]]


@pytest.fixture(scope="session")
def vectors_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "angles.txt"
    angles = torch.deg2rad(torch.tensor(list(ANGLES.values()), dtype=torch.float64))
    lines = [
        f"{word} {3 * x:.6f} {3 * y:.6f}"
        for word, x, y in zip(ANGLES, angles.cos().tolist(), angles.sin().tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def vectors(vectors_file: Path) -> WordVectors:
    return load_vectors(vectors_file)


@pytest.fixture(scope="session")
def job_of(lm: MaskedLM, vectors: WordVectors) -> Callable[..., Augmentation]:
    """A job over a file: ``job_of(path, copies=5, batch_size=7)``."""

    def make(path: Path, layout: Layout = SST2, **given: Any) -> Augmentation:
        chance = {"copies": 20, "probability": 0.4, "seed": 0, "pairs": "one-at-a-time"}
        chance = {name: given.pop(name, value) for name, value in chance.items()}
        words = eligible(
            given.pop("words", "[a-z]+"), given.pop("stop_words", "english"), given.pop("possessives", True)
        )
        settings = {"num_candidates": 5, "masked_lm": lm, "vectors": vectors} | given
        return Augmentation(open_source(str(path), layout), Proposer(words, **settings), Chance(**chance))

    return make


@pytest.fixture(scope="session")
def split() -> Callable[[str], list[str]]:
    """Runs of letters and what lies between them, for texts of ASCII."""
    return re.compile(r"([A-Za-z]+)").split


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and children are forked here."""
    torch.set_num_threads(1)
