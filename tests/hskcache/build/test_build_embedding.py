"""Embeddings that a build stores are what the modules of the teacher compute, by hand from its last hidden states."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commanded import parsed, refused, run
from embedders import DENSE_WIDTH, WIDTH, embedder
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from hskcache.cache import Cache, open_cache
from hskcache.encoding import ENCODINGS, get_encoding

POOLINGS = ("cls", "mean", "max", "last")
TEXTS = ["the film is dull", "a small story is charming and short", "funny", "its plot is warm " * 12]


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def built(teacher: Path, data: Path, out: Path, *options: object) -> Cache:
    sources = ("--teacher", teacher, "--data", data, "--text", "text", "--device", "cpu", "--out", out)
    result = run("build", *sources, "--encoding", "float32", *options)
    assert result.exit_code == 0, result.output
    return open_cache(out)


def stored(cache: Cache, name: str = "embedding") -> NDArray[Any]:
    return np.asarray(cache.read(name, 0)["values"])


def by_hand(folder: Path, texts: list[str], pooling: str, max_length: int = 20) -> torch.Tensor:
    """Pooled last states, one text at a time: no padding can have a part in it."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            states_LD = model(**inputs).last_hidden_state[0]
        ways = {"cls": states_LD[0], "mean": states_LD.mean(0), "max": states_LD.amax(0), "last": states_LD[-1]}
        rows.append(ways[pooling])
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_are_pooled_over_real_tokens(
    tiny_tokenizer_dir: Path, texts_file: Path, tmp_path: Path, pooling: str
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t", pooling, modules=())
    cache = built(folder, texts_file, tmp_path / "c", "--embedding", "model")
    assert list(cache.fields) == ["inputs", "embedding"], "no states that nobody asked for, and no logits"
    assert cache.manifest.request.data.problem == "none"
    np.testing.assert_allclose(stored(cache), by_hand(folder, TEXTS, pooling).numpy(), atol=2e-6)


def test_a_plain_encoder_is_pooled_as_asked(tiny_tokenizer_dir: Path, texts_file: Path, tmp_path: Path) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t")
    (folder / "modules.json").unlink()
    options = ("--embedding", "cls", "--normalize", "--max-length", "12")
    cache = built(folder, texts_file, tmp_path / "c", *options)
    expected = torch.nn.functional.normalize(by_hand(folder, TEXTS, "cls", 12), dim=-1)
    np.testing.assert_allclose(stored(cache), expected.numpy(), atol=2e-6)


def test_dense_prompt_prefix_and_length_are_as_the_folder_has_them(
    tiny_tokenizer_dir: Path, texts_file: Path, tmp_path: Path
) -> None:
    prompts = {"prompts": {"query": "the cast is ", "bare": ""}, "default_prompt_name": "query"}
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t", "mean", ("Dense", "Normalize"), **prompts)
    weights = load_file(folder / "2_Dense" / "model.safetensors")

    def expected(prompt: str, dims: int) -> NDArray[Any]:
        pooled = by_hand(folder, [prompt + text for text in TEXTS], "mean")
        led = torch.tanh(pooled @ weights["linear.weight"].T + weights["linear.bias"])[:, :dims]
        return (led / led.norm(dim=-1, keepdim=True)).numpy()

    whole = built(folder, texts_file, tmp_path / "c", "--embedding", "model")
    assert whole.manifest.request.spec.max_length == 20
    np.testing.assert_allclose(stored(whole), expected("the cast is ", DENSE_WIDTH), atol=2e-6)
    short = built(folder, texts_file, tmp_path / "d", "--embedding", "mean", "--dims", 5, "--prompt", "bare")
    np.testing.assert_allclose(stored(short), expected("", 5), atol=2e-6)
    assert stored(short).shape == (len(TEXTS), 5)


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_every_encoding_keeps_its_bound(
    tiny_tokenizer_dir: Path, texts_file: Path, tmp_path: Path, encoding: str
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t")
    options = ("--embedding", "model", "--dims", 7, "--encoding", encoding)
    cache = built(folder, texts_file, tmp_path / "c", *options)
    exact = torch.nn.functional.normalize(by_hand(folder, TEXTS, "mean")[:, :7], dim=-1)
    parts = {name: torch.from_numpy(array) for name, array in cache.read("embedding", 0).items()}
    decoded = get_encoding(encoding).decode(parts, 7)
    assert bool(((decoded - exact).abs() <= get_encoding(encoding).bound(exact) + 2e-6).all())
    assert parsed("audit", tmp_path / "c", "--teacher", folder, "--device", "cpu")["ok"]
    assert parsed("verify", tmp_path / "c", "--deep")["ok"]


def test_texts_of_pairs_are_rows_and_pieces_are_mended(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    folder, data, out = embedder(tiny_tokenizer_dir, tmp_path / "t"), tmp_path / "pairs.tsv", tmp_path / "c"
    lines = [f"{first}\t{second}" for first, second in zip(TEXTS[::2], TEXTS[1::2], strict=True)]
    data.write_text("\n".join(["a\tb", *lines]) + "\n")
    sources = ("--teacher", folder, "--data", data, "--text", "a", "--text-pair", "b", "--device", "cpu")
    done = run("build", *sources, "--embedding", "model", "--encoding", "float32", "--shard-rows", 2, "--out", out)
    assert done.exit_code == 0, done.output
    values = np.concatenate([open_cache(out).read("embedding", shard)["values"] for shard in range(2)])
    expected = torch.nn.functional.normalize(by_hand(folder, TEXTS, "mean"), dim=-1)
    np.testing.assert_allclose(values, expected.numpy(), atol=2e-6)
    lost = sorted(out.glob("embedding/*.zarr.zip"))[1]
    before = lost.read_bytes()
    lost.unlink()
    assert run("repair", out, "--teacher", folder, "--data", data, "--device", "cpu").exit_code == 0
    assert lost.read_bytes() == before
    more = tmp_path / "more.tsv"
    more.write_text("a\tb\nthe music is flat\tan old tale\n")
    appended = run("append", out, "--data", more, "--teacher", folder, "--device", "cpu")
    assert appended.exit_code == 0, appended.output
    assert open_cache(out).num_rows == len(TEXTS) + 2


def test_an_embedding_is_added_beside_another_and_of_a_corpus(
    tiny_tokenizer_dir: Path, texts_file: Path, tmp_path: Path
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t")
    built(folder, texts_file, tmp_path / "c", "--embedding", "model")
    other = embedder(tiny_tokenizer_dir, tmp_path / "o", "cls", modules=())
    added = ("--add-field", "embedding", "--name", "first", "--teacher", other, "--encoding", "float32")
    result = run("build", *added, "--device", "cpu", "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(
        stored(open_cache(tmp_path / "c"), "first"), by_hand(other, TEXTS, "cls").numpy(), atol=2e-6
    )
    shutil.rmtree(tmp_path / "c")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(TEXTS) + "\n")
    options = ("--corpus", corpus, "--pairs", "none", "--embedding", "model", "--max-length", 16, "--device", "cpu")
    result = run("build", "--teacher", folder, *options, "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert parsed("audit", tmp_path / "c", "--teacher", folder, "--device", "cpu")["ok"]


def test_an_embedder_is_added_to_the_cache_of_a_task(
    tiny_tokenizer_dir: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    out, seek = tmp_path / "c", {"prompts": {"query": "the cast "}, "default_prompt_name": "query"}
    sources = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--device", "cpu")
    assert run("build", *sources, "--keep", "none", "--out", out).exit_code == 0
    folder = embedder(tiny_tokenizer_dir, tmp_path / "t", **seek)
    added = (
        "build",
        "--add-field",
        "embedding",
        "--name",
        "mini",
        "--teacher",
        folder,
        "--device",
        "cpu",
        "--out",
        out,
    )
    assert "tokenized with '' before them; give --prompt ''" in refused(*added)
    result = run(*added, "--prompt", "", "--encoding", "float32")
    assert result.exit_code == 0, result.output
    texts = [line.partition("\t")[0] for line in tsv_file.read_text().splitlines()[1:]]
    expected = torch.nn.functional.normalize(by_hand(folder, texts, "mean", 64), dim=-1)
    np.testing.assert_allclose(stored(open_cache(out), "mini"), expected.numpy(), atol=2e-6)
    assert parsed("audit", out, "--teacher", folder, "--field", "mini", "--device", "cpu")["ok"]
    lost = next(out.glob("mini/*.zarr.zip"))
    before = lost.read_bytes()
    lost.unlink()
    mended = run("repair", out, "--teacher", folder, "--field", "mini", "--device", "cpu")
    assert mended.exit_code == 0, mended.output
    assert lost.read_bytes() == before


def test_a_classifier_keeps_its_logits_beside(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    sources = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--device", "cpu")
    result = run("build", *sources, "--embedding", "mean", "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert list(open_cache(tmp_path / "c").fields) == ["inputs", "logits", "embedding"]


def test_what_cannot_be_is_refused_in_a_line(
    tiny_tokenizer_dir: Path, tiny_teacher_dir: Path, texts_file: Path, tmp_path: Path
) -> None:
    folder, out = embedder(tiny_tokenizer_dir, tmp_path / "t"), ("--out", tmp_path / "c", "--device", "cpu")
    ours = ("build", "--teacher", folder, "--data", texts_file, "--text", "text", *out)
    theirs = ("build", "--teacher", tiny_teacher_dir, "--data", texts_file, "--text", "text", *out)
    assert "pools by mean" in refused(*ours, "--embedding", "cls")
    assert f"has {WIDTH} values" in refused(*ours, "--embedding", "model", "--dims", WIDTH + 1)
    assert "--dims says how embeddings are kept, but none are" in refused(*ours, "--dims", 3)
    assert "--label text" in refused(*ours, "--embedding", "model", "--label", "text")
    assert "scores a classifier" in refused(*ours, "--embedding", "model", "--eval-data", texts_file)
    assert "has no modules.json" in refused(*theirs, "--embedding", "model")
    assert "stands before texts alone" in refused(*theirs, "--embedding", "mean", "--prompt", "seek: ")
