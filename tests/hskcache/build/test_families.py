"""A teacher of any family goes the whole way, and what is cached of it is what transformers says of it by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commanded import parsed, refused, run
from models import saved
from torch import Tensor

import hskcache
from hskcache.teacher.load import load_teacher

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
COMMON = {
    **SIZE,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "problem_type": "single_label_classification",
}
FAMILIES: dict[str, dict[str, Any]] = {
    "ModernBert": {"local_attention": 4, "global_attn_every_n_layers": 2},
    "Albert": {"embedding_size": 16},
    "DebertaV2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "type_vocab_size": 0,
    },
    "MPNet": {},
}
KEEP = ("--keep", "2l_3t_0.5h", "--student-layers", "2", "--encoding", "float32", "--max-length", "32")


def teacher(kind: str, folder: Path, tokenizer_dir: Path, **config: Any) -> Path:
    """A classifier of random weights beside the tiny tokenizer."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    names = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    settings = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **ids, **names, **config)
    return saved(lambda: getattr(transformers, f"{kind}ForSequenceClassification")(settings), tokenizer, folder)


def by_hand(kind: str, folder: Path, ids: list[int]) -> Any:
    """One row, unpadded, through the eager model."""
    model = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(
        folder, attn_implementation="eager"
    )
    row = torch.tensor([ids])
    with torch.inference_mode():
        return model.eval()(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            output_hidden_states=True,
            output_attentions=True,
        )


def largest(states: Tensor, columns: int) -> Tensor:
    """Vectors of which all but the largest values are 0."""
    kept = states.abs().topk(columns).indices
    return torch.zeros_like(states).scatter(-1, kept, states.gather(-1, kept))


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_goes_the_whole_way(kind: str, tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    folder = teacher(kind, tmp_path / "teacher", tiny_tokenizer_dir, **COMMON, **FAMILIES[kind])
    out = tmp_path / "c.hsk"
    built = run("build", "--teacher", folder, "--data", tsv_file, "--task", "sst2", *KEEP, "--out", out)
    assert built.exit_code == 0, built.stderr
    assert ("whole maps" in built.stderr) == (kind in {"DebertaV2", "MPNet"})
    cache = hskcache.open_cache(out)
    layers = cache.fields["hidden"].layers
    for index in (0, 7):
        row = cache[index]
        expected = by_hand(kind, folder, [int(token) for token in row["input_ids"]])
        torch.testing.assert_close(torch.tensor(row["logits"]), expected.logits[0], rtol=1e-4, atol=1e-5)
        for layer in layers:
            states = expected.hidden_states[layer][0]
            # A layer's positions are scored by the attention that made it.
            best = expected.attentions[layer - 1][0, :, 0].mean(0).topk(3).indices
            assert row[f"hidden.{layer}.positions"].tolist() == best.tolist()
            kept = torch.tensor(row[f"hidden.{layer}"])
            torch.testing.assert_close(kept, largest(states[best], 16), rtol=1e-4, atol=1e-4)
    assert run("verify", out, "--deep").exit_code == 0
    assert run("audit", out, "--teacher", folder).exit_code == 0


LOGITS = ("--keep", "none", "--max-length", "32")


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Llama", {**COMMON, "num_key_value_heads": 2}),
        ("Bart", {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "decoder_start_token_id": 3}),
        ("Longformer", {**COMMON, "attention_window": 8}),
    ],
)
def test_the_logits_of_any_classifier_can_be_cached(
    kind: str, config: dict[str, Any], tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    folder = teacher(kind, tmp_path / "teacher", tiny_tokenizer_dir, **config)
    out = tmp_path / "c.hsk"
    asked = ("build", "--teacher", folder, "--data", tsv_file, "--task", "sst2", "--out", out)
    assert (
        "use " in (why := refused(*asked, "--keep", "1l_3t_0.5h", "--student-layers", "1"))
        or "can be" in why
        or "can serve" in why
    )
    built = run(*asked, *LOGITS)
    assert built.exit_code == 0, built.stderr
    row = hskcache.open_cache(out)[5]
    model = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(folder).eval()
    ids = torch.tensor([row["input_ids"].tolist()])
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    torch.testing.assert_close(torch.tensor(row["logits"]), expected, rtol=1e-4, atol=1e-5)
    assert parsed("info", out)["fields"].keys() == {"inputs", "logits"}


def test_a_bigbird_reads_all_rows_alike_and_says_how(
    tiny_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sparse attention ends with the first short row, so a long one would depend on what came before it."""
    sizes = {**COMMON, "max_position_embeddings": 512, "block_size": 16, "num_random_blocks": 2}
    folder = teacher("BigBird", tmp_path / "teacher", tiny_tokenizer_dir, **sizes)
    model = load_teacher(str(folder), "cpu").model
    assert "full attention" in capsys.readouterr().err
    long, short = torch.arange(448)[None] % 90 + 5, torch.tensor([[2, 7, 3]])
    with torch.inference_mode():
        first = model(long).logits
        model(short)
        assert torch.equal(model(long).logits, first)
