"""Caches of a causal language model's rows, from the command to their end."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_pairs import MARKED, byte_pairs
from commanded import parsed, refused, run
from folders import contents
from forked import start
from language_models import gpt2
from models import saved

from hskcache import open_cache
from hskcache.encoded import ENCODED

TALK = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is a film."}]
KEPT = ("--keep", "1l", "--student-layers", "2")
SMALL = ("--keep", "1l", "--student-layers", "2", "--max-length", "24", "--shard-rows", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(lambda: gpt2(vocab_size=320), byte_pairs(MARKED), tmp_path_factory.mktemp("lm"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"the film is {n}\nthis movie is dull and short {n}\n\n" for n in range(9)))
    return path


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    path.write_text((json.dumps({"messages": TALK}) + "\n") * 6)
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"q": f"What is {n}?", "a": " It is a film."}) + "\n" for n in range(6)))
    return path


def sources(corpus: Path, chat: Path, answers: Path) -> dict[str, tuple[object, ...]]:
    return {
        "corpus": ("--corpus", corpus),
        "one": ("--corpus", corpus, "--one-document"),
        "texts": ("--corpus", answers, "--text", "q"),
        "completions": ("--data", answers, "--text", "q", "--completion", "a"),
        "chat": ("--chat", chat, "--max-length", "60"),
    }


@pytest.fixture
def source(request: pytest.FixtureRequest, corpus: Path, chat: Path, answers: Path) -> tuple[object, ...]:
    return sources(corpus, chat, answers)[request.param]


@pytest.mark.parametrize("source", ["corpus", "one", "texts", "completions", "chat"], indirect=True)
def test_rows_are_built_verified_looked_at_exported_and_passed_on(
    source: tuple[object, ...], teacher: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "c", ("--teacher", teacher, *SMALL, *source)
    assert parsed("estimate", *told)["num_rows"] == parsed("build", *told, "--out", out)["num_rows"]
    assert "already complete" in run("build", *told, "--out", out).stderr
    assert parsed("verify", out)["ok"]
    facts, cache = parsed("info", out), open_cache(out)
    assert facts["data"]["problem"] == "language"
    counts = []
    for number in range(cache.num_rows):
        row = parsed("view", out, number) if number < 2 else None
        data = cache.row(number)
        targets = data.get("targets", np.arange(len(data["input_ids"])) > 0)
        assert not targets[0]
        if row is not None:
            assert row["targets"] == np.flatnonzero(targets).tolist()
            assert row["document"] == data["document"]
        counts.append(int(targets.sum()))
    assert facts["data"]["provenance"]["language"]["num_targets"] == sum(counts) > 0
    assert f"{sum(counts):,} tokens are predicted" in run("info", out).stdout
    assert run("export", out, tmp_path / "c.h5").exit_code == 0
    assert run("import", tmp_path / "c.h5", tmp_path / "again").exit_code == 0
    assert open_cache(tmp_path / "again").id == cache.id
    assert run("pull", out, tmp_path / "pulled").exit_code == 0
    assert open_cache(tmp_path / "pulled").id == cache.id


@pytest.mark.parametrize("encoding", list(ENCODED))
def test_hidden_states_of_every_encoding_are_those_of_the_model(
    encoding: str, teacher: Path, answers: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run(
        "build",
        "--teacher",
        teacher,
        *SMALL,
        "--data",
        answers,
        "--text",
        "q",
        "--encoding",
        encoding,
        "--out",
        tmp_path / "c",
    )
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    for row in open_cache(tmp_path / "c"):
        with torch.inference_mode():
            states = model(torch.tensor(row["input_ids"][None]).long(), output_hidden_states=True).hidden_states
        ours, theirs = row["hidden.4"][np.argsort(row["hidden.4.positions"])], states[4][0].numpy()
        bound = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2, "int8": 1e-2, "int4": 0.2}[encoding]
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


def killed_after(words: tuple[object, ...], shards: int) -> None:
    """Run a command in a child that SIGKILL ends right before it would commit another shard than the first few."""
    commits = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal commits
        if event == "os.rename" and re.search(r"/hidden/[0-9]+\.json$", str(arguments[1])):
            commits += 1
            if commits > shards:
                os.kill(os.getpid(), signal.SIGKILL)

    work: Callable[[], object] = lambda: run(*words)  # noqa: E731
    assert os.WIFSIGNALED(os.waitpid(start(work, count), 0)[1])


@pytest.mark.parametrize("source", ["corpus", "chat"], indirect=True)
def test_a_build_that_was_killed_ends_with_the_same_bytes(
    source: tuple[object, ...], teacher: Path, tmp_path: Path
) -> None:
    words = ("build", "--teacher", teacher, *SMALL, *source, "--out")
    assert run(*words, tmp_path / "whole").exit_code == 0
    killed_after((*words, tmp_path / "c"), 1)
    assert run(*words, tmp_path / "c").exit_code == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


@pytest.mark.parametrize("source", ["corpus", "one", "texts", "completions", "chat"], indirect=True)
def test_rows_are_repaired_and_appended_as_they_were_made(
    source: tuple[object, ...], teacher: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    assert run("build", "--teacher", teacher, *SMALL, *source, "--out", out).exit_code == 0
    before = contents(out)
    shard = next((out / "inputs").glob("0*.zarr.zip"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    advice = run("repair", out).stdout
    assert f"{source[0] if source[0] != '--corpus' else ''}" in advice
    # What is not said is as in the cache.
    assert run("repair", out, "--teacher", teacher, *source[:2]).exit_code == 0
    assert contents(out) == before
    rows = open_cache(out).num_rows
    more = tmp_path / f"more{Path(str(source[1])).suffix}"
    text = Path(str(source[1])).read_text()
    more.write_text(text.replace(" is ", " was "))
    assert parsed("append", out, "--teacher", teacher, source[0], more)["num_rows"] > rows
    assert parsed("verify", out)["ok"]


def test_rows_in_memory_are_those_of_a_file(teacher: Path, answers: Path, tmp_path: Path) -> None:
    from hskcache import build

    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    how: dict[str, Any] = {"text": "q", "text_pair": "a", "keep": "1l", "max_length": 24, "device": "cpu"}
    here = build(teacher, rows, out=tmp_path / "a", **how)
    assert here.id == build(teacher, answers, out=tmp_path / "b", **how).id
    table = here.to_arrow(columns=["input_ids", "document", "targets"]).read_all()
    assert table.column("document").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert table.column("targets")[0].as_py() == here.row(0)["targets"].tolist()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--corpus", "{corpus}", "--pairs", "next"), "--pairs, --short-rows, --copies and --mask"),
        (("--data", "{answers}"), "--text COLUMN"),
        (("--data", "{answers}", "--text", "q", "--label", "a"), "--label: rows of a causal language model"),
        (("--data", "{answers}", "--text", "q", "--task", "sst2"), "--task: rows of a causal language model"),
        (("--data", "{answers}", "--text", "q", "--keep-text"), "--keep-text keeps texts of whole rows"),
        (("--data", "{answers}", "--text", "q", "--eval-data", "x"), "--eval-data x scores a classifier"),
        (("--corpus", "{answers}"), "no column 'text'"),
        (("--corpus", "{answers}", "--one-document"), "has a document a line"),
        (("--chat", "{corpus}"), "no .jsonl file"),
        (("--chat", "{answers}"), "line 1: no messages"),
        (("--chat", "{chat}", "--roles", "tool"), "no turn of tool"),
        (("--chat", "{chat}", "--text", "q"), "--chat has messages and no columns"),
        (("--chat", "{chat}", "--data", "{answers}"), "--data and --chat were given"),
        (("--chat", "{chat}", "--max-length", "8"), "among the first 8 tokens"),
        (("--chat", "{chat}", "--embedding", "mean"), "of which there are no embeddings"),
        (("--corpus", "{corpus}", "--roles", "user"), "--roles says whose turns of --chat"),
        (("--data", "{answers}", "--text", "q", "--one-document"), "--one-document reads a text file"),
        (("--corpus", "{corpus}", "--stride", "4"), "reads from left to right"),
    ],
)
def test_what_rows_of_a_language_model_do_not_have_is_refused(
    flags: tuple[str, ...], words: str, teacher: Path, corpus: Path, chat: Path, answers: Path, tmp_path: Path
) -> None:
    given = [flag.format(corpus=corpus, chat=chat, answers=answers) for flag in flags]
    assert words in refused("build", "--teacher", teacher, "--keep", "1l", *given, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_models_that_say_no_next_tokens_are_refused(
    tiny_teacher_dir: Path, corpus: Path, chat: Path, tmp_path: Path
) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 320}
    both = saved(lambda: T5ForConditionalGeneration(T5Config(**sizes)), byte_pairs(MARKED), tmp_path / "t5")
    body = saved(lambda: gpt2(vocab_size=320).transformer, byte_pairs(MARKED), tmp_path / "body")
    for model, option, words in (
        (both, ("--corpus", corpus), "an encoder with a decoder"),
        (both, ("--chat", chat), "an encoder with a decoder"),
        (tiny_teacher_dir, ("--chat", chat), "give a causal language model"),
        (tiny_teacher_dir, ("--corpus", corpus, "--one-document"), "give a causal language model"),
        (body, ("--chat", chat), "without a head"),
    ):
        assert words in refused("build", "--teacher", model, "--keep", "1l", *option, "--out", tmp_path / "c")
    done = run(
        "build", "--teacher", body, "--keep", "1l", "--max-length", "16", "--corpus", corpus, "--out", tmp_path / "c"
    )
    assert done.exit_code == 0
    assert open_cache(tmp_path / "c").manifest.request.data.problem == "text"


def test_another_template_is_another_cache(teacher: Path, chat: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    other = tmp_path / "lm"
    AutoModelForCausalLM.from_pretrained(teacher).save_pretrained(other)
    # Another template that renders this chat alike.
    byte_pairs(MARKED + "{# more #}").save_pretrained(other)
    words = ("--keep", "1l", "--chat", chat, "--out", tmp_path / "c")
    assert run("build", "--teacher", teacher, *words).exit_code == 0
    assert "tokenizer.sha256" in refused("build", "--teacher", other, *words)


def test_a_part_of_the_rows_has_their_targets_and_documents(teacher: Path, chat: Path, tmp_path: Path) -> None:
    words = ("build", "--teacher", teacher, *SMALL, "--chat", chat, "--max-length", "60", "--out", tmp_path / "c")
    assert run(*words).exit_code == 0
    assert run("extract", tmp_path / "c", "--view", "rows=4", "--out", tmp_path / "part").exit_code == 0
    whole, part = open_cache(tmp_path / "c"), open_cache(tmp_path / "part")
    for row in range(4):
        assert part.row(row)["targets"].tolist() == whole.row(row)["targets"].tolist()
        assert part.row(row)["document"] == row
    # Of some of the rows it is not known how many tokens are predicted.
    assert "tokens are predicted" not in run("info", tmp_path / "part").stdout
    more = ("--add-field", "hidden", "--name", "more", *KEPT, "--out", tmp_path / "c")
    assert run("build", "--teacher", teacher, *more).exit_code == 0
    assert parsed("verify", tmp_path / "c")["ok"]


@pytest.mark.parametrize(
    ("targets", "words"),
    [([1, 0, 1, 0, 0], "first token of a row"), ([0, 0, 2, 0, 1], "targets holds 2")],
)
def test_targets_that_cannot_be_are_damage(
    targets: list[int], words: str, teacher: Path, answers: Path, tmp_path: Path
) -> None:
    from hskcache.errors import DamageError
    from hskcache.store.kinds import KINDS

    words_of = ("--data", answers, "--text", "q", "--completion", "a", "--out", tmp_path / "c")
    assert run("build", "--teacher", teacher, *SMALL, *words_of).exit_code == 0
    manifest = open_cache(tmp_path / "c").manifest
    arrays = {
        "input_ids": np.zeros(5, np.uint16),
        "row_offsets": np.array([0, 3, 5]),
        "targets": np.array(targets, np.uint8),
    }
    with pytest.raises(DamageError, match=words):
        KINDS["inputs"].check_content(manifest.request, manifest.fields["inputs"], arrays)
