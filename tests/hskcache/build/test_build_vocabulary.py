"""Next tokens of a language model as a cache holds them: against its own logits, in float64."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commanded import parsed, run
from language_models import language_tokenizer, llama
from models import saved

from hskcache.alignment import misalignment, require_aligned
from hskcache.cache import Cache, open_cache
from hskcache.decoded import decode
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.errors import DamageError
from hskcache.store.fields import INPUTS, VocabularyField
from hskcache.store.kinds.vocabulary import log_probabilities, unpacked

FORMS = ("top:6", "sampled:9", "head", "head:int4", "head:bfloat16")
TEXTS = [
    "The first text says a little.",
    "Another one, of more words than the first, is cut into rows.",
    "Short.",
    "A text about nothing at all, which goes on for a while and then ends.",
    "x",
]


def taught() -> Any:
    model, tokenizer = llama(tie_word_embeddings=False), language_tokenizer()
    batches = [torch.tensor([[*tokenizer(text)["input_ids"], 2]]) for text in TEXTS]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(15):
        for ids in batches:
            model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that has learned the texts: what it says of next tokens tells of which it is."""
    return saved(taught, language_tokenizer(), tmp_path_factory.mktemp("teacher") / "llama")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3))
    return path


def built(teacher: Path, corpus: Path, out: Path, *options: object) -> Cache:
    result = run(
        "build", "--teacher", teacher, "--corpus", corpus, "--max-length", 24, "--device", "cpu", *options, "--out", out
    )
    assert result.exit_code == 0, result.output
    return open_cache(out)


@pytest.mark.parametrize("encoding", list(ENCODED))
def test_states_too_coarse_for_a_distribution_are_told_of_with_what_to_give_instead(
    encoding: str, teacher: Path, corpus: Path
) -> None:
    rows = ("--teacher", teacher, "--corpus", corpus, "--max-length", 24, "--device", "cpu")
    result = run("estimate", *rows, "--vocabulary", f"head:{encoding}")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if "another distribution" in line]
    assert len(told) == (encoding == "int4")
    assert all(line.startswith("--vocabulary head:int4 ") and "give head:int8, or top:32" in line for line in told)


@pytest.fixture(scope="module", params=FORMS)
def cache(
    request: pytest.FixtureRequest, teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Cache:
    out = tmp_path_factory.mktemp("caches") / "c"
    return built(teacher, corpus, out, "--vocabulary", request.param, "--shard-rows", 16)


def stored(cache: Cache, shard: int = 0) -> tuple[VocabularyField, dict[str, Any], dict[str, Any]]:
    field = cache.fields["vocabulary"]
    assert isinstance(field, VocabularyField)
    return field, cache.read("vocabulary", shard), cache.read(INPUTS, shard)


def expected(teacher: Path, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits float64 [P, V] before every target of a shard, the targets, and the final states [P, D]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    logits, golds, states = [], [], []
    offsets = inputs["row_offsets"]
    targets = inputs.get("targets")
    for start, stop in pairwise(offsets):
        ids = torch.from_numpy(inputs["input_ids"][start:stop].astype(np.int64))
        is_target = torch.arange(len(ids)) > 0 if targets is None else torch.from_numpy(targets[start:stop] != 0)
        places = is_target.nonzero()[:, 0]
        with torch.inference_mode():
            states.append(model.model(ids[None]).last_hidden_state[0][places - 1])
            logits.append(model(ids[None]).logits[0][places - 1].double())
        golds.append(ids[places])
    return torch.cat(logits), torch.cat(golds), torch.cat(states)


def test_all_that_is_stored_is_of_the_models_own_logits(cache: Cache, teacher: Path) -> None:
    field, arrays, inputs = stored(cache)
    logits, golds, states = expected(teacher, inputs)
    assert len(logits) == len(arrays["positions"]) == arrays["position_offsets"][-1]
    logp = logits.log_softmax(-1)
    log_z = torch.from_numpy(arrays["log_z"]).double()
    assert torch.allclose(log_z, logits.logsumexp(-1), rtol=2.0**-10, atol=1e-4)
    at_gold = logp.gather(1, golds[:, None])[:, 0]
    assert torch.allclose(torch.from_numpy(arrays["gold"]).double(), at_gold, rtol=2.0**-10, atol=1e-4)
    match field.form:
        case "top":
            best, ids = logp.topk(6)
            assert np.array_equal(unpacked(field, arrays), ids.numpy())
            found = torch.from_numpy(log_probabilities(arrays))
            assert bool(
                ((found - best).abs() <= torch.from_numpy(arrays["ranges"]).double()[:, None] / 255 + 4e-3).all()
            )
        case "sampled":
            counts = torch.zeros_like(logp).scatter_add_(
                1, torch.from_numpy(unpacked(field, arrays)), torch.ones(len(logp), 9, dtype=torch.float64)
            )
            assert bool(((counts - 9 * logp.exp()).abs() < 1 + 1e-4).all())
        case "head":
            assert field.encoding is not None
            found = decode(field, arrays, None, {}).values_VE
            bound = get_encoding(field.encoding).bound(states)
            assert bool(((found - states).abs() <= bound + 1e-4 * float(states.abs().max())).all())


def test_the_head_that_is_stored_is_the_teachers(cache: Cache, teacher: Path) -> None:
    field, _, _ = stored(cache)
    if field.form != "head":
        assert "vocabulary" not in cache.manifest.constants
        return
    from transformers import AutoModelForCausalLM

    weight = AutoModelForCausalLM.from_pretrained(teacher).lm_head.weight
    assert field.head_dtype == "float32"
    assert np.array_equal(cache.constants("vocabulary")["weight"], weight.detach().numpy())


def apart(cache: Cache, teacher: Path) -> tuple[float, float]:
    """Mean KL of what stored states and head say from the model's own logits, and how often both have one favourite."""
    kl, same, weight = [], [], torch.from_numpy(cache.constants("vocabulary")["weight"]).double()
    for shard in range(len(cache.shards)):
        field, arrays, inputs = stored(cache, shard)
        logits, _, _ = expected(teacher, inputs)
        said = decode(field, arrays, None, {}).values_VE.double() @ weight.T
        logp = logits.log_softmax(-1)
        kl.append((logp.exp() * (logp - said.log_softmax(-1))).sum(-1))
        same.append(said.argmax(-1) == logits.argmax(-1))
    return float(torch.cat(kl).mean()), float(torch.cat(same).double().mean())


def test_it_is_verified_told_and_audited(cache: Cache, teacher: Path) -> None:
    root = cache.root
    assert parsed("verify", root, "--deep")["ok"]
    (shown, *_) = parsed("view", root, 1)["vocabulary"]
    assert shown["position"] == 0
    form = cache.fields["vocabulary"].form  # type: ignore[attr-defined]
    assert len(shown["tokens"]) == {"top": 3, "sampled": len(shown["tokens"]), "head": 0}[form]
    report = parsed("audit", root, "--teacher", teacher, "--device", "cpu", "--rows", cache.num_rows)
    assert report["ok"]
    (layer,) = report["layers"]
    assert layer["log_z_error"] < 0.02
    if form == "top":
        assert layer["same_first"] == layer["same_columns"] == 1
        assert layer["kl"] < 1e-4
    elif form == "head":
        kl, same = apart(cache, teacher)
        assert layer["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-7)
        assert layer["same_first"] == pytest.approx(same)
    else:
        assert layer["same_first"] is layer["kl"] is None


def test_a_head_that_is_kept_once_is_told_apart_from_what_a_row_takes(cache: Cache) -> None:
    field = parsed("info", cache.root)["fields"]["vocabulary"]
    constants = [path.stat().st_size for path in (cache.root / "vocabulary").glob("constants-*.zip")]
    assert field["num_shared_bytes"] == sum(constants)
    assert field["bytes_per_row"] * cache.num_rows == pytest.approx(field["num_bytes"] - sum(constants), abs=1)
    assert ("of it once" in run("info", cache.root).output) == bool(constants)


def test_an_audit_finds_another_teacher_out(cache: Cache, tmp_path: Path) -> None:
    other = saved(lambda: llama(initializer_range=0.3), language_tokenizer(), tmp_path / "other")
    report = parsed("audit", cache.root, "--teacher", other, "--device", "cpu", "--rows", 9, code=1)
    # Few draws leave much open: in some rows those of the other teacher might have been the same.
    is_sampled = cache.fields["vocabulary"].form == "sampled"  # type: ignore[attr-defined]
    assert report["layers"][0]["num_bad_rows"] >= (4 if is_sampled else 9)


@pytest.mark.parametrize("form", ["top:6", "sampled:9"])
def test_bytes_depend_on_nothing_but_rows_and_what_is_kept(
    form: str, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """In other batches and other shards the same tokens are drawn, of the same rows; floats move by their last bits."""
    given = ("--vocabulary", form)
    here = built(teacher, corpus, tmp_path / "a", *given, "--shard-rows", 40)
    there = built(teacher, corpus, tmp_path / "b", *given, "--shard-rows", 16, "--token-budget", 64)
    name = "ids" if form.startswith("top") else "gaps"
    ours = here.read("vocabulary", 0)[name]
    theirs = np.concatenate([there.read("vocabulary", shard)[name] for shard in range(len(there.shards))])
    assert (ours == theirs).all(-1).mean() > 0.99


def test_shards_that_are_cut_off_or_appended_have_the_same_draws(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", "sampled:9", "--shard-rows", 16)
    whole = built(teacher, corpus, tmp_path / "whole", *given)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "whole", copy)
    lost = sorted(copy.glob("vocabulary/*.zarr.zip"))[1]
    before = lost.read_bytes()
    lost.unlink()
    result = run("repair", copy, "--teacher", teacher, "--corpus", corpus, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert lost.read_bytes() == before
    assert open_cache(copy).id == whole.id


@pytest.mark.parametrize("shift", [-1, 1])
def test_positions_that_are_off_by_one_are_refused_by_that_word(cache: Cache, shift: int) -> None:
    field, arrays, inputs = stored(cache)
    constants = cache.constants("vocabulary")
    require_aligned("vocabulary", field, arrays, inputs, constants)
    moved = dict(arrays)
    counts = np.diff(arrays["position_offsets"])
    last = np.repeat(np.diff(inputs["row_offsets"]) - 2, counts)
    moved["positions"] = np.clip(arrays["positions"].astype(np.int64) + shift, 0, last).astype(np.uint16)
    with pytest.raises(DamageError, match=r"vocabulary is off by one: it holds at .* than its distribution gives"):
        require_aligned("vocabulary", field, moved, inputs, constants)


def test_rows_in_another_order_are_refused_too(cache: Cache) -> None:
    field, arrays, inputs = stored(cache)
    mixed = {**inputs, "input_ids": np.random.default_rng(0).permutation(inputs["input_ids"])}
    found = misalignment(field, arrays, mixed, cache.constants("vocabulary"))
    assert found is not None
    assert "off by one" not in found


def test_a_row_that_is_left_out_says_nothing_of_the_others(cache: Cache) -> None:
    field, arrays, inputs = stored(cache)
    first, last = arrays["position_offsets"][1:3]
    parts = cache.fields["vocabulary"]
    from hskcache.store.fields import kind_of

    empty = {
        name: np.concatenate([array[:first], np.zeros_like(array[first:last]), array[last:]])
        if name in kind_of(parts).value_parts(parts)
        else array
        for name, array in arrays.items()
    }
    assert misalignment(field, empty, inputs, cache.constants("vocabulary")) is None


def test_top_is_kept_where_nothing_is_said_and_nothing_else(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    cache = built(teacher, corpus, tmp_path / "c")
    assert list(cache.fields) == [INPUTS, "vocabulary"]
    field = cache.fields["vocabulary"]
    assert isinstance(field, VocabularyField)
    assert (field.form, field.count) == ("top", 32)
    both = built(teacher, corpus, tmp_path / "both", "--keep", "1l", "--student-layers", 2)
    assert list(both.fields) == [INPUTS, "hidden", "vocabulary"]
    states = built(teacher, corpus, tmp_path / "states", "--keep", "1l", "--student-layers", 2, "--vocabulary", "none")
    assert list(states.fields) == [INPUTS, "hidden"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (
            "topp:32",
            r"--vocabulary 'topp:32' is none of top:32, sampled:50, head, head:int4 and none.*do you mean 'top'",
        ),
        ("top:0", "'0' is not a number of tokens from 2 to 4,096; write it as in top:32"),
        ("top:1", "not a number of tokens from 2"),
        ("sampled:0", "from 1 to 4,096; write it as in sampled:50"),
        ("top:264", "llama knows 264 tokens; keep fewer, or give --vocabulary head"),
        ("head:32", "a head is kept whole; leave the number out"),
        ("head:int9", "'int9' is not an encoding; use one of .*do you mean 'int"),
        ("none", "nothing would be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_a_line(
    word: str, reason: str, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    result = run(
        "build",
        "--teacher",
        teacher,
        "--corpus",
        corpus,
        "--max-length",
        24,
        "--vocabulary",
        word,
        "--out",
        tmp_path / "c",
    )
    assert result.exit_code == 2
    assert re.search(reason, result.stderr.replace("\n", " ")), result.stderr


def test_a_classifier_says_no_next_tokens(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    given = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--vocabulary", "top:4")
    result = run("build", *given, "--out", tmp_path / "c")
    assert result.exit_code == 2
    assert "is no causal language model, so nothing can be kept of next tokens; leave --vocabulary out" in result.stderr


def test_logits_that_are_not_finite_end_a_build_or_are_left_out(corpus: Path, tmp_path: Path) -> None:
    def broken() -> Any:
        model = llama(tie_word_embeddings=False)
        with torch.no_grad():
            # A letter of one text alone.
            model.model.embed_tokens.weight[language_tokenizer()("x", add_special_tokens=False)["input_ids"][0]] = (
                torch.inf
            )
        return model

    teacher = saved(broken, language_tokenizer(), tmp_path / "broken")
    given = ("--teacher", teacher, "--corpus", corpus, "--max-length", 24, "--vocabulary", "top:4", "--device", "cpu")
    result = run("build", *given, "--out", tmp_path / "c")
    assert result.exit_code == 2
    assert "the vocabulary would be stored with values that are not finite" in result.stderr
    result = run("build", *given, "--on-nonfinite", "skip", "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert parsed("verify", tmp_path / "c", "--deep")["skipped"]["vocabulary"]
