"""Families of classifiers that transformers ships, each with a tiny model: what of it can be cached."""

import inspect
import json
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from benchmarks.harness import options, report

SMALL: Mapping[str, Any] = {
    "vocab_size": 120,
    "num_labels": 3,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "num_layers"), 3),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "decoder_attention_heads"), 4
    ),
    **dict.fromkeys(("intermediate_size", "d_ff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("bos_token_id", "cls_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "moe_intermediate_size": 32,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "decoder_start_token_id": 2,
}
"""Sizes by the names that configurations have for them; of each those that it knows are given."""

LESS: Sequence[Sequence[str]] = ((), ("num_key_value_heads",), ("head_dim",), ("num_key_value_heads", "head_dim"))
"""Sizes that are left out, one set after the other, until a model can be made: some families derive them."""

MOST_WEIGHTS = 40_000_000
MOST_BYTES = 6_000_000_000
MOST_SECONDS = 60


def known(config: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a class of configurations has a name for."""
    names = {*inspect.signature(config).parameters, *getattr(config, "attribute_map", {})}
    names |= set(getattr(config, "__dataclass_fields__", {}))
    common = {"num_labels", "pad_token_id", "bos_token_id", "eos_token_id"}
    return {name: size for name, size in sizes.items() if name in names | common}


def tiny(family: str, class_name: str) -> Any:
    """A classifier of a family. Raises ValueError, with the last reason, if none of the sizes make a small one."""
    import torch
    import transformers
    from transformers import CONFIG_MAPPING

    config, reason = CONFIG_MAPPING[family], ""
    for left_out in LESS:
        sizes = {name: size for name, size in SMALL.items() if name not in left_out}
        try:
            settings = config(**known(config, sizes))
            make = getattr(transformers, class_name)
            with torch.device("meta"):
                weights = sum(parameter.numel() for parameter in make(settings).parameters())
            if weights > MOST_WEIGHTS:
                reason = f"{weights / 1e6:.0f} million weights even so"
                continue
            torch.manual_seed(0)
            return make(settings)
        except Exception as error:  # noqa: BLE001  (each family has errors of its own)
            reason = " ".join(str(error).split())[:120]
    raise ValueError(reason)


def seen(family: str, class_name: str) -> dict[str, str]:
    """Parts of a family's knowledge that can be cached, in words, by kind; and why the rest cannot."""
    from hskcache.errors import TeacherError
    from hskcache.teacher.taps import find_taps

    try:
        model = tiny(family, class_name)
    except ValueError as error:
        return {"why": f"not tried: {error}"}
    try:
        taps = find_taps(model)
    except TeacherError as error:
        return {"why": str(error).partition(" ")[2].partition("; use")[0]}
    attention = {"queries": "scores and maps", "maps": "scores", None: ""}[taps.attention]
    why = "; ".join(reason for reason in (taps.without_states, taps.without_attention) if reason)
    return {"logits": "yes", "hidden": "yes" if taps.states else "", "attention": attention, "why": why}


def in_child(family: str, class_name: str) -> dict[str, str]:
    """As :func:`seen`, in a process that may take so much memory and time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        signal.alarm(MOST_SECONDS)
        os.write(writing, json.dumps(seen(family, class_name)).encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"why": "not tried: it takes more memory or time than it may"}


def families(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What can be cached of the families of these names, of all if there are none."""
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for family in names or sorted(CLASSES):
        class_name = CLASSES[family]
        yield family, in_child(family, class_name if isinstance(class_name, str) else class_name[0])


def group(parts: Mapping[str, str]) -> str:
    """Families that a family stands with in the guide, by what can be cached of them."""
    why = parts["why"]
    if "padded" in why:
        return "none: padding changes the answer"
    if not parts.get("logits"):
        return "not tried: no tiny model of theirs runs here"
    if not parts["hidden"]:
        return "logits"
    if not parts["attention"]:
        return "logits, hidden states" + (" (decoders)" if "causally" in why else "")
    return f"logits, hidden states, attention: {parts['attention']}"


def markdown(found: Mapping[str, Mapping[str, str]]) -> str:
    """The table of the guide, a row a group of families."""
    groups: dict[str, list[str]] = {}
    for family, parts in found.items():
        groups.setdefault(group(parts), []).append(family)
    lines = ["| what can be cached | families, as `model_type` has them |", "|---|---|"]
    lines += [f"| {name} | {', '.join(families)} |" for name, families in sorted(groups.items())]
    return "\n".join(lines)


@click.command()
@click.option("--family", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table of the guide.")
@options.as_json
def main(names: tuple[str, ...], as_markdown: bool, as_json: bool) -> None:
    """Tell what can be cached of every family of classifiers that transformers ships.

    Each has three layers of random weights and goes through the probe that every teacher goes through; nothing is
    listed by hand. Decoders, which attend to earlier tokens alone, have no [CLS] row that scores positions.
    """
    import transformers

    found = dict(families(names))
    if as_json:
        click.echo(json.dumps({"transformers": transformers.__version__, "families": found}, indent=2))
    elif as_markdown:
        click.echo(markdown(found))
    else:
        kinds = ("logits", "hidden", "attention", "why")
        rows = [[family, *(parts.get(kind, "") for kind in kinds)] for family, parts in found.items()]
        click.echo(
            report.table("Knowledge that can be cached", ["family", "logits", "hidden", "attention", "why not"], rows)
        )
