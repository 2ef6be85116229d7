"""Positions of a language model's rows that are kept: the best by a score, of next tokens and hidden states alike."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from commanded import parsed, run
from language_models import language_model

from hskcache.cache import Cache, open_cache
from hskcache.selection.length import entropy_score
from hskcache.store.fields import INPUTS, VocabularyField

ROWS = [
    {"prompt": f"What is {one}? ", "answer": f"It is {one * one}, and no other; so it is said."[: 4 + 3 * one]}
    for one in range(11)
]
SCORES = ("entropy", "loss", "last", "left", "right", "random")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("teacher") / "llama", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def command(teacher: Path, data: Path, *options: object) -> tuple[object, ...]:
    return (
        *("build", "--teacher", teacher, "--data", data, "--text", "prompt", "--completion", "answer"),
        *("--max-length", 48, "--device", "cpu", *options),
    )


def built(teacher: Path, data: Path, out: Path, *options: object) -> Cache:
    result = run(*command(teacher, data, *options), "--out", out)
    assert result.exit_code == 0, result.output
    return open_cache(out)


def refusal(teacher: Path, data: Path, out: Path, *options: object) -> str:
    result = run(*command(teacher, data, *options), "--out", out)
    assert result.exit_code == 2, result.output
    assert not out.exists()
    return str(result.stderr).replace("\n", " ")


def rows_of(cache: Cache, name: str = "vocabulary", prefix: str = "") -> list[list[int]]:
    """Kept positions of every row of a cache, as they are stored."""
    found = []
    for shard in range(len(cache.shards)):
        arrays = cache.read(name, shard)
        found += [
            arrays[f"{prefix}positions"][start:stop].tolist() for start, stop in pairwise(arrays["position_offsets"])
        ]
    return found


def said(teacher: Path, cache: Cache) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Of every row of a cache the positions with a target, their log p float64 [P, V], and these targets."""
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(teacher).eval(), []
    for row in range(cache.num_rows):
        stored = cache.row(row)
        ids = torch.from_numpy(stored["input_ids"].astype(np.int64))
        places = [one - 1 for one in range(1, len(ids)) if "targets" not in stored or stored["targets"][one]]
        with torch.inference_mode():
            logp = model(ids[None]).logits[0][places].double().log_softmax(-1)
        found.append((places, logp, ids[[one + 1 for one in places]]))
    return found


def ranked(score: str, places: list[int], logp: torch.Tensor, golds: torch.Tensor) -> list[int]:
    """All positions of a row, best first, by the definition of a score."""
    values = {
        "entropy": -(logp.exp() * logp).sum(-1),
        "loss": -logp.gather(1, golds[:, None])[:, 0],
        "last": torch.tensor(places),
        "right": torch.tensor(places),
        "left": -torch.tensor(places),
    }[score].tolist()
    return [place for _, place in sorted(zip(values, places, strict=True), key=lambda one: (-one[0], one[1]))]


def num_of(share: float, count: int) -> int:
    return max(1, round(share * count))


@pytest.mark.parametrize("score", [one for one in SCORES if one != "random"])
@pytest.mark.parametrize("form", ["top:6", "sampled:9", "head"])
def test_a_share_of_each_row_is_kept_best_first(
    score: str, form: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    cache = built(teacher, data, tmp_path / "c", "--vocabulary", form, "--keep", "0.2t", "--score", score)
    assert list(cache.fields) == [INPUTS, "vocabulary"]
    field = cache.fields["vocabulary"]
    assert isinstance(field, VocabularyField)
    assert (field.max_tokens, field.share) == (None, 0.2)
    expected = [ranked(score, *one)[: num_of(0.2, len(one[0]))] for one in said(teacher, cache)]
    assert rows_of(cache) == expected
    assert len({len(one) for one in expected}) > 2
    golds = np.concatenate([cache.read("vocabulary", shard)["gold"] for shard in range(len(cache.shards))])
    logp = [
        float(one[place, gold])
        for (places, one, ids), kept in zip(said(teacher, cache), expected, strict=True)
        for place, gold in ((places.index(at), int(ids[places.index(at)])) for at in kept)
    ]
    np.testing.assert_allclose(golds, logp, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["top:6", "sampled:9", "head"])
def test_what_is_kept_is_what_a_whole_cache_holds_there(form: str, teacher: Path, data: Path, tmp_path: Path) -> None:
    whole = built(teacher, data, tmp_path / "whole", "--vocabulary", form)
    some = built(teacher, data, tmp_path / "some", "--vocabulary", form, "--keep", "3t", "--score", "entropy")
    for ours, theirs in zip(map(some.row, range(len(ROWS))), map(whole.row, range(len(ROWS))), strict=True):
        here, there = ours["vocabulary"], theirs["vocabulary"]
        assert len(here["positions"]) == min(3, len(there["positions"]))
        at = [there["positions"].tolist().index(place) for place in here["positions"]]
        assert here["ranks"].tolist() == [1, 2, 3][: len(at)]
        for name in there:
            np.testing.assert_array_equal(here[name], there[name][at])


def test_hidden_states_are_kept_at_the_same_positions(teacher: Path, data: Path, tmp_path: Path) -> None:
    given = ("--keep", "2l_0.3t", "--student-layers", 2, "--score", "entropy")
    both = built(teacher, data, tmp_path / "both", "--vocabulary", "top:6", *given)
    assert list(both.fields) == [INPUTS, "hidden", "vocabulary"]
    kept = rows_of(both)
    for layer in ("layer_02/", "layer_04/"):
        assert rows_of(both, "hidden", layer) == kept
    alone = built(teacher, data, tmp_path / "alone", "--vocabulary", "none", *given)
    assert list(alone.fields) == [INPUTS, "hidden"]
    assert rows_of(alone, "hidden", "layer_04/") == kept
    # Of next tokens as much is kept where nothing is said of them.
    unsaid = built(teacher, data, tmp_path / "unsaid", *given)
    assert rows_of(unsaid) == rows_of(unsaid, "hidden", "layer_02/") == kept
    positions = built(teacher, data, tmp_path / "positions", "--keep", "0.3t", "--score", "entropy")
    assert list(positions.fields) == [INPUTS, "vocabulary"]
    assert rows_of(positions) == kept


@pytest.mark.parametrize("score", ["entropy", "random"])
def test_neither_batches_nor_shards_move_what_is_kept(score: str, teacher: Path, data: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", "sampled:9", "--keep", "0.25t", "--score", score)
    here = built(teacher, data, tmp_path / "a", *given, "--shard-rows", 40)
    there = built(teacher, data, tmp_path / "b", *given, "--shard-rows", 3, "--token-budget", 64)
    assert rows_of(here) == rows_of(there)
    if score == "random":
        assert rows_of(here) != rows_of(built(teacher, data, tmp_path / "c", "--spec", seeded(here, tmp_path)))


def seeded(cache: Cache, folder: Path) -> Path:
    """The spec of a cache with another seed of its positions."""
    spec = cache.manifest.request.spec.model_dump(mode="json")
    spec["vocabulary"]["length"]["seed"] = 5
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.mark.parametrize("form", ["top:6", "sampled:9", "head"])
def test_it_is_verified_told_audited_and_estimated(form: str, teacher: Path, data: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", form, "--keep", "0.2t", "--score", "entropy")
    cache = built(teacher, data, tmp_path / "c", *given)
    assert parsed("verify", cache.root, "--deep")["ok"]
    report = parsed("audit", cache.root, "--teacher", teacher, "--device", "cpu", "--rows", 9)
    assert report["ok"]
    assert report["layers"][0]["same_positions"] == 1
    assert run("info", cache.root).stdout.count("0.2 of the positions") == 1
    shown = parsed("view", cache.root, 10)["vocabulary"]
    assert [one["rank"] for one in shown] == list(range(1, len(shown) + 1))
    assert "kept" in run("view", cache.root, 10).stdout
    facts = parsed("estimate", *command(teacher, data, *given)[1:])
    bytes_of_position = facts["most_bytes"]["vocabulary"]
    whole = parsed("estimate", *command(teacher, data, "--vocabulary", form)[1:])["most_bytes"]["vocabulary"]
    assert bytes_of_position < whole
    assert cache.num_bytes("vocabulary") <= facts["most_bytes"]["vocabulary"]


def test_an_audit_finds_positions_out_that_are_not_the_best(teacher: Path, data: Path, tmp_path: Path) -> None:
    given = ("--vocabulary", "top:6", "--keep", "2t", "--score", "entropy")
    cache = built(teacher, data, tmp_path / "c", *given)
    other = language_model(tmp_path / "other", tie_word_embeddings=False, initializer_range=0.3)
    report = parsed("audit", cache.root, "--teacher", other, "--device", "cpu", "--rows", 9, code=1)
    assert report["layers"][0]["same_positions"] < 1


def test_the_entropy_is_that_of_the_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 300, generator=generator) * torch.logspace(-3, 3, 40)[:, None]
    logits[3, 10:200] = -torch.inf
    expected = torch.special.entr(logits.double().softmax(-1)).sum(-1)
    torch.testing.assert_close(entropy_score(logits.clone()).double(), expected, rtol=1e-5, atol=1e-6)
    assert entropy_score(torch.tensor([[0.0, -torch.inf]])).item() < 1e-30


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("--keep", "0.2t"),
            "--score attention ranks, as it does where nothing is said, no positions of next tokens; give --score left",
        ),
        (("--keep", "0.2t", "--score", "received"), "--score received ranks no positions of next tokens"),
        (("--keep", "5t", "--score", "cls"), "--score cls ranks no positions of next tokens"),
        (("--keep", "5t", "--score", "all"), "--score all ranks no positions of next tokens"),
        (("--keep", "0.2t", "--score", "entropie"), "entropie.*is not one of|do you mean 'entropy'|Did you mean"),
        (
            ("--vocabulary", "top:6", "--keep", "full", "--score", "entropy"),
            "all of them are kept; say how many, as in --keep 0.2t",
        ),
        (("--keep", "1.2t", "--score", "entropy"), "the share of tokens is 1.2; give one above 0 and at most 1"),
        (("--vocabulary", "top:6", "--score", "entropy"), "--score"),
    ],
)
def test_what_ranks_no_next_tokens_is_refused_in_a_line(
    options: tuple[str, ...], reason: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    found = refusal(teacher, data, tmp_path / "c", *options)
    assert re.search(reason, found), found


def test_scores_of_next_tokens_are_refused_for_an_encoder(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    given = ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--keep", "1l_0.5t")
    result = run("build", *given, "--score", "entropy", "--out", tmp_path / "c")
    assert result.exit_code == 2
    assert "is no causal language model; give --score attention, attention-logit, received" in result.stderr.replace(
        "\n", " "
    )
    result = run("build", *given, "--student-layers", 2, "--out", tmp_path / "d")
    assert result.exit_code == 0, result.output
    cache = open_cache(tmp_path / "d")
    layer = cache.fields["hidden"].stored_layers[0]
    for row in range(cache.num_rows):
        stored = cache.row(row)
        assert len(stored["hidden"][layer]["positions"]) == num_of(0.5, len(stored["input_ids"]))
