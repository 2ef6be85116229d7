"""Rows that are longer than the teacher reads are one row of the cache, each token of which was read in a window."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from commanded import refused, run
from hypothesis import given
from hypothesis import strategies as st
from models import saved
from stored import shard_file

import hskcache
from hskcache.teacher.capture import Wanted
from hskcache.teacher.taps import find_taps
from hskcache.teacher.windows import capture_windows
from hskcache.text.windows import Windowing
from trainer.cli import main as hsktrain

WORDS = ["a", "the", "film", "of", "it", "is", "not", "good", "bad", "plot", "one", "more", "long", "very"]
READS, LONG, OVERLAP = 64, 400, 16
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
STATES = ("--student-layers", 2, "--encoding", "float32", "--keep")


def texts(num_words: list[int]) -> list[tuple[str, int]]:
    draw = np.random.default_rng(1)
    return [(" ".join(draw.choice(WORDS, count)), place % 2) for place, count in enumerate(num_words)]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rows, of which three are longer than the 64 tokens that the tiny teacher reads."""
    file = tmp_path_factory.mktemp("documents") / "rows.tsv"
    rows = texts([60, 5, 12, 45, 18, 40])
    file.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return file


@pytest.fixture(scope="module")
def build(tiny_teacher_dir: Path, documents: Path) -> tuple[object, ...]:
    words = ("build", "--teacher", tiny_teacher_dir, "--data", documents, "--task", "sst2", "--device", "cpu")
    return (*words, "--max-length", LONG, "--stride", OVERLAP)


@pytest.fixture(scope="module")
def whole(build: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "c"
    assert run(*build, *STATES, "full", "--out", out).exit_code == 0
    return out


def by_hand(teacher: Path, ids: list[int], overlap: int = OVERLAP) -> tuple[Any, Any, Any]:
    """Logits, all hidden states and the first token's attention in every layer of a row, window by window."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher, attn_implementation="eager").eval()
    first, last, text = ids[0], ids[-1], ids[1:-1]
    room, count = READS - 2, 1
    while len(text) > room + (count - 1) * (room - overlap):
        count += 1
    starts = [0] if count == 1 else [place * (len(text) - room) // (count - 1) for place in range(count)]
    logits: list[torch.Tensor] = []
    states: dict[int, torch.Tensor] = {}
    scores: dict[int, torch.Tensor] = {}
    best: dict[int, int] = {}
    for start in starts:
        window = [first, *text[start : start + room], last]
        with torch.inference_mode():
            seen = model(input_ids=torch.tensor([window]), output_hidden_states=True, output_attentions=True)
        logits.append(seen.logits[0])
        for place in range(len(window)):
            if place == 0:
                position, margin = 0, -start
            elif place == len(window) - 1:
                position, margin = len(ids) - 1, start
            else:
                position, margin = start + place, min(place - 1, room - place)
            if position not in best or margin > best[position]:
                best[position] = margin
                states[position] = torch.stack([layer[0, place] for layer in seen.hidden_states])
                scores[position] = torch.stack([layer[0, :, 0, place].mean() for layer in seen.attentions])
    order = range(len(ids))
    return torch.stack(logits).mean(0), torch.stack([states[p] for p in order]), torch.stack([scores[p] for p in order])


def test_a_row_is_whole_and_its_states_are_those_of_the_window_where_a_token_is_most_in_the_middle(
    whole: Path, tiny_teacher_dir: Path
) -> None:
    cache = hskcache.open_cache(whole)
    lengths = []
    for row in cache:
        ids = row["input_ids"].tolist()
        logits, states, _ = by_hand(tiny_teacher_dir, ids)
        lengths.append(len(ids))
        np.testing.assert_allclose(row["logits"], logits, atol=2e-5)
        for layer in (0, 2, 4):
            assert row[f"hidden.{layer}.positions"].tolist() == list(range(len(ids)))
            np.testing.assert_allclose(row[f"hidden.{layer}"], states[:, layer], atol=5e-5)
    assert sorted(length > READS for length in lengths) == [False] * 3 + [True] * 3


def test_positions_are_ranked_by_what_each_token_is_given_in_its_window(
    build: tuple[object, ...], tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    assert run(*build, *STATES, "1l_7t", "--out", tmp_path / "c").exit_code == 0
    for row in hskcache.open_cache(tmp_path / "c"):
        _, _, scores = by_hand(tiny_teacher_dir, row["input_ids"].tolist())
        best = scores[:, -1].topk(min(7, len(scores)))
        kept = row["hidden.4.positions"].tolist()
        np.testing.assert_allclose(scores[kept, -1], best.values, atol=1e-6)


def test_rows_that_are_read_whole_are_the_same_bits_without_windows(
    build: tuple[object, ...], documents: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.tsv"
    lines = documents.read_text().splitlines()
    short.write_text("\n".join(line for line in lines if len(line.split()) < 25) + "\n")
    words = [short if word == documents else word for word in build]
    told = run(*words, *STATES, "2l", "--out", tmp_path / "a")
    assert told.exit_code == 0
    assert "no row of more than 64 tokens" in told.stderr
    words[words.index(LONG)] = READS
    assert run(*words[:-2], *STATES, "2l", "--out", tmp_path / "b").exit_code == 0
    both = [hskcache.open_cache(tmp_path / name) for name in "ab"]
    assert [record.sha256 for record in both[0].manifest.shards["hidden"]] == [
        record.sha256 for record in both[1].manifest.shards["hidden"]
    ]


def test_it_is_audited_mended_appended_to_and_given_fields_as_it_was_built(
    whole: Path, tiny_teacher_dir: Path, documents: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "c"))
    assert run("audit", out, "--teacher", tiny_teacher_dir, "--device", "cpu").exit_code == 0
    shard_file(out, "hidden", 0).unlink()
    mended = run("repair", out, "--teacher", tiny_teacher_dir, "--data", documents, "--device", "cpu")
    assert mended.exit_code == 0, mended.output
    assert hskcache.open_cache(out).manifest.cache_id == hskcache.open_cache(whole).manifest.cache_id
    words = ("--teacher", tiny_teacher_dir, "--data", documents, "--device", "cpu", "--again")
    appended = run("append", out, *words)
    assert appended.exit_code == 0, appended.output
    cache = hskcache.open_cache(out)
    for name in ("logits", "hidden"):
        first, second = cache.manifest.shards[name]
        assert first.sha256 == second.sha256
    words = ("--add-field", "logits", "--name", "more", "--teacher", tiny_teacher_dir, "--device", "cpu")
    added = run("build", "--out", out, *words, "--stride", OVERLAP)
    assert added.exit_code == 0, added.output
    more = hskcache.open_cache(out).manifest.shards
    assert [one.sha256 for one in more["more"]] == [one.sha256 for one in more["logits"]]


def test_answers_of_tokens_are_those_of_the_window_where_they_stand_most_in_the_middle() -> None:
    """A tagger's last layer is linear, so its answers follow from the states of the same windows."""
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=READS, num_labels=5, **SMALL)
    model = transformers.BertForTokenClassification(config).eval()
    ids = torch.randint(5, 50, (2, 150), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][1, 40:] = 0
    seen = capture_windows(
        model, find_taps(model), inputs, Wanted(frozenset({2})), Windowing(READS, OVERLAP, 1, 1), 2 * READS
    )
    assert seen.logits is not None
    real = inputs["attention_mask"].bool()
    with torch.inference_mode():
        expected = model.classifier(seen.hidden[2])
    torch.testing.assert_close(seen.logits[real], expected[real])
    assert seen.logits.shape == (2, 150, 5)


def test_windows_that_do_not_fit_into_the_budget_are_read_one_after_the_other(
    build: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    assert run(*build, *STATES, "full", "--token-budget", READS, "--out", tmp_path / "c").exit_code == 0
    for few, many in zip(hskcache.open_cache(tmp_path / "c"), hskcache.open_cache(whole), strict=True):
        np.testing.assert_allclose(few["logits"], many["logits"], atol=2e-5)
        np.testing.assert_allclose(few["hidden.4"], many["hidden.4"], atol=5e-5)


def hsktrain_run(*args: object) -> Result:
    return CliRunner().invoke(hsktrain, list(map(str, args)), catch_exceptions=False)


def test_a_student_reads_the_rows_whole_and_one_of_fewer_positions_is_refused(
    whole: Path, tiny_tokenizer_dir: Path, documents: Path, tmp_path: Path
) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    words = ("fit", "--cache", whole, "--eval-data", documents, "--task", "sst2", "--device", "cpu")
    few = ("--recipe", "mud", "--set", "hidden.epochs=1", "--set", "prediction.epochs=1")
    ends = []
    for positions in (READS, 512):
        config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=positions, **SMALL)
        folder = saved(lambda config=config: transformers.BertModel(config), tokenizer, tmp_path / str(positions))
        ends.append(hsktrain_run(*words, *few, "--student", folder, "--out", tmp_path / f"out{positions}"))
    assert ends[0].exit_code == 2
    assert "the student has 64 positions and rows of" in ends[0].stderr
    assert ends[1].exit_code == 0, ends[1].output
    assert (tmp_path / "out512" / "model.safetensors").exists()


def test_a_decoder_is_refused(tiny_tokenizer_dir: Path, documents: Path, tmp_path: Path) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=64,
        num_labels=2,
        **sizes,
    )
    folder = saved(lambda: transformers.LlamaForSequenceClassification(config), tokenizer, tmp_path)
    words = ("--teacher", folder, "--data", documents, "--task", "sst2", "--device", "cpu", "--keep", "none")
    said = refused("build", *words, "--max-length", LONG, "--stride", 16, "--out", tmp_path / "c")
    assert "reads from left to right" in said


@given(
    length=st.integers(3, 300),
    window=st.integers(4, 64),
    overlap=st.integers(0, 60),
    around=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_every_token_is_taken_once_and_neighbours_share_enough(
    length: int, window: int, overlap: int, around: tuple[int, int]
) -> None:
    before, after = around
    overlap = min(overlap, window - before - after - 1)
    if overlap < 0 or length <= before + after:
        return
    made = Windowing(window, overlap, before, after)
    spread = made.spread(np.array([length, window]))
    mine = spread.rows_V == 0
    assert mine.sum() == made.counts(np.array([length]))[0]
    taken = np.sort(spread.positions_VW[mine][spread.is_taken_VW[mine]])
    assert taken.tolist() == list(range(length))
    if length > window:
        starts = spread.positions_VW[mine][:, before]
        assert starts[0] == before
        assert starts[-1] + made.room == length - after
        assert np.all(np.diff(starts) <= made.room - overlap)
        assert np.all(np.diff(starts) > 0)
        # One window less would share less.
        assert made.room + (mine.sum() - 2) * (made.room - overlap) < length - before - after


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--stride", 62), "a window of 64 tokens holds 62 of a text"),
        (("--stride", 16, "--max-length", 64), "give --max-length as long as rows may be"),
        (("--stride", 16, "--attention", "4t"), "there are none between windows"),
        (("--stride", 16, "--embedding", "cls"), "give --embedding mean or max"),
        (("--stride", 16, "--text-pair", "label"), "rows are pairs of texts"),
    ],
)
def test_what_does_not_go_with_windows_is_refused(
    flags: tuple[object, ...], said: str, build: tuple[object, ...], tmp_path: Path
) -> None:
    assert said in refused(*build[:-2], *flags, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_teacher_is_scored_in_windows(
    build: tuple[object, ...], tiny_teacher_dir: Path, documents: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    made = run(*build, "--keep", "none", "--eval-data", documents, "--out", out)
    assert made.exit_code == 0, made.output
    (scores,) = hskcache.open_cache(out).manifest.evaluations
    answers = [int(row["logits"].argmax()) for row in hskcache.open_cache(out)]
    gold = [int(line.rpartition("\t")[2]) for line in documents.read_text().splitlines()[1:]]
    assert scores.metrics["accuracy"] == pytest.approx(np.mean(np.equal(answers, gold)))
    assert "of more than 64 tokens read in windows that share 16 tokens" in run("info", out).stdout
    scored = ("evaluate", "--model", tiny_teacher_dir, "--data", documents, "--task", "sst2", "--device", "cpu")
    evaluated = hsktrain_run(*scored, "--max-length", LONG, "--stride", OVERLAP, "--json")
    assert json.loads(evaluated.stdout)["metrics"]["accuracy"] == scores.metrics["accuracy"]
