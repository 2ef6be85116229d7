"""The command that trains a student from a cache, printed whole: it runs as it stands, but for names in capitals."""

import shlex
from pathlib import Path

from hskcache.recall import column_flags
from hskcache.store.fields import INPUTS
from hskcache.store.manifest import AttentionField, DataInfo, InputsField, Manifest
from hskcache.text.rows import FORMATS

_STUDENTS = {4: "tinybert4", 6: "tinybert6"}
_HEADS = 12
"""Heads of both students."""


def fit_command(manifest: Manifest, cache: str) -> str:
    """The command that trains a student from a cache.

    Args:
        manifest: of the cache.
        cache: its path or URL.
    """
    request, fields = manifest.request, manifest.own_fields
    section = next((one for one in (request.spec.hidden, request.spec.attention) if one is not None), None)
    student = "tinybert4" if section is None else _STUDENTS.get(section.depth.student_layers, "CONFIG.json")
    words = ["hsktrain", "fit", "--cache", cache, "--student", student]
    if not request.data.has_task:
        served = {"tinybert-general": {"hidden", "attention"}, "embedding": {"embedding"}}
        words += ["--recipe", next((name for name, kinds in served.items() if kinds <= fields.keys()), "RECIPE.yaml")]
        attention = fields.get("attention")
        if isinstance(attention, AttentionField) and _HEADS not in (attention.num_heads, attention.teacher_heads):
            words += ["--set", "general.losses.attention.heads=mean"] if "hidden" in fields else []
    else:
        words += [] if "hidden" in fields else ["--recipe", "logits"]
        words += ["--eval-data", f"dev{_suffix(request.data)}", *_columns(manifest)]
    return shlex.join([*words, "--out", "student"])


def _columns(manifest: Manifest) -> list[str]:
    data, inputs = manifest.request.data, manifest.fields[INPUTS]
    flags = column_flags(data)
    if data.provenance is not None and data.provenance.task is not None:
        return flags
    if not {"--task", "--text"} & set(flags):
        flags += ["--text", "TEXT"]
    if "--task" not in flags and not (isinstance(inputs, InputsField) and inputs.has_labels and "--label" in flags):
        return [*_without(flags, "--label"), "--label", "LABEL"]
    # A task's labels score a student, also where the rows of the cache have none.
    return flags if "--label" in flags and flags[flags.index("--label") + 1] else _without(flags, "--label")


def _without(flags: list[str], flag: str) -> list[str]:
    """Options without one of them and its value."""
    if flag not in flags:
        return flags
    place = flags.index(flag)
    return flags[:place] + flags[place + 2 :]


def _suffix(data: DataInfo) -> str:
    """Suffix of a file with the columns of some rows."""
    if data.name.startswith("hub:"):
        return ".parquet"
    suffix = Path(data.name).suffix.lower()
    return suffix if suffix in FORMATS else ".tsv"
