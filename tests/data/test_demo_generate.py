"""The synthetic data set is the same everywhere, and its labels follow from the order of words."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hskcache.resources import resource
from hskcache.text import examples_for, load_task

SCRIPT = resource("demo", "generate.py")


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    specification = importlib.util.spec_from_file_location("demo_generate", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def words(rows: list[tuple[str, int]]) -> list[set[str]]:
    return [set(text.split()) for text, _ in rows]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), num_rows=st.integers(0, 300))
def test_rows_are_distinct_within_length_and_a_prefix_of_a_longer_list(
    demo: ModuleType, seed: int, num_rows: int
) -> None:
    rows = demo.generate(num_rows, seed)
    assert len(rows) == num_rows
    assert len({text for text, _ in rows}) == num_rows
    assert all(6 <= demo.num_words(text) <= 40 and text.endswith(" .") for text, _ in rows)
    assert rows == demo.generate(num_rows + 20, seed)[:num_rows]


def test_another_seed_gives_other_rows(demo: ModuleType) -> None:
    assert not set(demo.generate(100, 0)) & set(demo.generate(100, 1))


def test_the_rows_of_a_seed_never_change(demo: ModuleType) -> None:
    """Figures measured on the demo's data stay comparable across machines and versions of Python."""
    content = "\n".join(f"{text}\t{label}" for text, label in demo.generate(2000, 0))
    assert (
        hashlib.sha256(content.encode()).hexdigest()
        == "b2c8864fdd2cd03e48d75be25411e93f17442c3f5032acb1e38d3478e1cfaa13"
    )


def test_both_classes_are_about_as_frequent_and_lengths_spread(demo: ModuleType) -> None:
    rows = demo.generate(4000, 3)
    assert 0.45 < sum(label for _, label in rows) / len(rows) < 0.55
    lengths = [demo.num_words(text) for text, _ in rows]
    assert min(lengths) <= 7
    assert max(lengths) >= 35


def test_a_plain_judgement_has_the_label_of_its_word_and_a_denied_one_the_other(demo: ModuleType) -> None:
    denials = re.compile(r"\b(not|never|hardly|far from|anything but|by no means|nobody)\b")
    checked = 0
    for text, label in demo.generate(20_000, 4):
        pieces = text.split()
        judging = [word for word in pieces if word in demo.ADJECTIVES[0] + demo.ADJECTIVES[1]]
        if len(judging) == 1 and not {";", "although", "though", ",", "and"} & set(pieces):
            favourable = judging[0] in demo.ADJECTIVES[1]
            assert label == (favourable != bool(denials.search(text))), text
            checked += 1
    assert checked > 500


def test_two_orders_of_the_same_words_can_have_either_label(demo: ModuleType) -> None:
    """What decides between clauses is which is the main one: both labels occur for each kind of first clause."""
    seen = {
        (text.startswith("although"), bool(set(text.split()) & set(demo.ADJECTIVES[1])), label)
        for text, label in demo.generate(5000, 5)
        if "although" in text.split()
    }
    assert len(seen) == 8


@pytest.mark.parametrize("feature", ["not", "never", "hardly", "although", "but", "very", "called"])
def test_negation_contrast_intensity_and_distraction_all_occur(demo: ModuleType, feature: str) -> None:
    assert sum(feature in present for present in words(demo.generate(2000, 6))) > 20


def test_word_counts_alone_do_not_solve_it(demo: ModuleType) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = demo.generate(5000, 7)
    texts, labels = zip(*rows, strict=True)
    counts = CountVectorizer(token_pattern=r"\S+").fit_transform(texts)
    model = LogisticRegression(max_iter=300, C=0.3).fit(counts[:4000], labels[:4000])
    assert 0.65 < model.score(counts[4000:], labels[4000:]) < 0.85


def test_the_files_share_no_sentence_and_are_read_as_sst2(tmp_path: Path) -> None:
    options = ["--train-rows", "300", "--dev-rows", "100", "--seed", "5"]
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "new"), *options]
    subprocess.run(command, check=True)
    train, dev = (examples_for(tmp_path / "new" / name, load_task("sst2")) for name in ("train.tsv", "dev.tsv"))
    assert (len(train), len(dev)) == (300, 100)
    assert not set(train.texts) & set(dev.texts)
    assert (tmp_path / "new" / "train.tsv").read_bytes().startswith(b"sentence\tlabel\n")


def test_a_count_that_cannot_be_is_refused(demo: ModuleType) -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        demo.generate(-1, 0)
    done = subprocess.run([sys.executable, SCRIPT, "--dev-rows", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "at least 1" in done.stderr


def test_it_runs_on_the_standard_library_alone() -> None:
    """``-S`` and ``-I`` hide every installed package."""
    subprocess.run([sys.executable, "-I", "-S", SCRIPT, "--help"], check=True, capture_output=True)
