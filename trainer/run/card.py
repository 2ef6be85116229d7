"""The model card of a student or a teacher: where it comes from, how it was trained, its scores, and how to use it.

It begins with the YAML that the Hugging Face hub reads, the scores among it. The licence is left to whoever shares it.
A README.md that somebody wrote or edited is never replaced.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from hskcache.classes import problem_of
from hskcache.counted import counted
from hskcache.evaluation import share_kept
from hskcache.hub import divided, is_path
from hskcache.move.card import is_card, marked, word
from hskcache.store.beside import README
from hskcache.store.request import Request, TeacherInfo
from hskcache.text.remembered import Remembered
from hskcache.units import human_bytes

# As the hub and its library of metrics call them.
_HUB_METRICS = {"f1_macro": "f1", "matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
_OWN_CLASSES = "compact_bert"


@dataclass(frozen=True)
class Account:
    """Everything that a card tells of a model beside its configuration and its scores.

    Attributes:
        began: the model that it began as: a name, a folder or a hub id.
        random_weights: whether that had none.
        teacher: that it learned from; None: it learned from labels alone.
        lines: of Markdown on where its knowledge is from.
        settings: of the training, as plain values.
        data: name of the rows that its scores are of; None where it has none.
        rows: how its rows are read; None where that is not known.
        is_embedder: whether its folder is one of sentence-transformers.
    """

    began: str
    random_weights: bool = False
    teacher: TeacherInfo | None = None
    lines: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    rows: Remembered | None = None
    is_embedder: bool = False


def write_card(folder: Path, model: PreTrainedModel, account: Account, result: Mapping[str, Any]) -> None:
    """Write README.md into the folder of a model, unless one stands there that is not of this program alone.

    ``result``: the content of metrics.json. Raises OSError if the folder cannot be written.
    """
    path = folder / README
    if path.is_file() and not is_card(path.read_bytes()):
        return
    path.write_bytes(card(folder.name, model, account, result))


def card(name: str, model: PreTrainedModel, account: Account, result: Mapping[str, Any]) -> bytes:
    """The card of a model that is called ``name``."""
    parts = [
        _front(name, model, account, result),
        _introduction(name, model, account),
        _scores(account, result),
        _sizes(model, account),
        "\n".join(["## Where it comes from", "", f"- began as: {_began(account)}", *account.lines]),
        _training(account),
        _use(name, model, account),
    ]
    return marked("\n\n".join(part for part in parts if part))


def lines_of(request: Request, cache_id: str | None, fields: Sequence[str], view: str) -> list[str]:
    """Lines of a card on knowledge that was learned from.

    ``cache_id``: None of a teacher in the loop. ``fields``: names of what was learned from. ``view``: the part of the
    cache that was seen; empty: all.
    """
    teacher = request.teacher
    revision = f", revision {word(teacher.revision)}" if teacher.revision else ""
    lines = [f"- teacher: {word(teacher.name)}{revision} ({teacher.model_type}), weights `{teacher.weights_sha256}`"]
    names = ", ".join(f"`{name}`" for name in fields) or "its rows and labels alone"
    if cache_id is None:
        lines.append(f"- learned of the teacher in the loop: {names}")
    else:
        seen = f", seen as `{word(view)}`" if view else ""
        lines.append(f"- learned of the cache `{cache_id}`: {names}{seen}")
    for part in request.parts:
        rows = f"{counted(part.num_rows, 'row')}, fingerprint `{word(part.fingerprint)}`"
        lines.append(f"- data: {word(part.name)}, {rows}")
    return lines


def _answers(model: PreTrainedModel) -> str | None:
    """The hub's word for what a model with a head does, scored or not; None of one without."""
    if model.can_generate():
        return "text-generation"
    if type(model).__name__.endswith("ForTokenClassification"):
        return "token-classification"
    return "text-classification" if type(model).__name__.endswith("ForSequenceClassification") else None


def _front(name: str, model: PreTrainedModel, account: Account, result: Mapping[str, Any]) -> str:
    scores = result.get("scores") or {}
    task = None if account.rows is None else account.rows.task
    source = word(account.data or "")
    is_hub = (account.data or "").startswith("hub:")
    results = [
        EvalResult(
            task_type="sentence-similarity" if account.is_embedder else _answers(model) or "text-classification",
            dataset_type=source.removeprefix("hub:").partition(":")[0] if is_hub else word(task or source),
            dataset_name=source,
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=value,
        )
        for metric, value in scores.items()
    ]
    library = "sentence-transformers" if account.is_embedder else "transformers"
    without_scores = "sentence-similarity" if account.is_embedder else "fill-mask"
    values = ModelCardData(
        library_name=library,
        pipeline_tag=_answers(model) or without_scores,
        tags=["hskcache", *(["knowledge-distillation"] if account.teacher is not None else [])],
        base_model=divided(account.began)[0] if _is_hub_id(account) else None,
        metrics=sorted({_HUB_METRICS.get(metric, metric) for metric in scores}) or None,
        model_name=word(name),
        eval_results=results or None,
    )
    return f"---\n# license: choose the one that the data and the teacher allow\n{values.to_yaml()}\n---"


def _introduction(name: str, model: PreTrainedModel, account: Account) -> str:
    config = model.config
    shape = f"{counted(config.num_hidden_layers, 'layer')} of width {config.hidden_size}"
    how = "fine-tuned on labels" if account.teacher is None else f"distilled from {word(account.teacher.name)}"
    what = {
        "classification": "classifier",
        "multilabel": "multi-label classifier",
        "regression": "model of scores",
        "tagging": "classifier",
    }
    without_task = "An embedder" if account.is_embedder else "An encoder"
    answers = f"A {what[problem_of(config) or 'classification']}"
    kind = answers if _answers(model) else without_task
    if _answers(model) == "text-generation":
        return f"# {word(name)}\n\nA causal language model: {config.model_type}, {shape}, {how} by hskcache."
    if _answers(model) == "token-classification":
        return f"# {word(name)}\n\nA tagger of words: {config.model_type}, {shape}, {how} by hskcache."
    return f"# {word(name)}\n\n{kind} of texts: {config.model_type}, {shape}, {how} by hskcache."


def _scores(account: Account, result: Mapping[str, Any]) -> str:
    scores, errors = result.get("scores") or {}, result.get("standard_errors", {})
    if not scores or account.data is None:
        return ""
    baselines = result.get("baselines", {})
    rows = f", {counted(result['num_rows'], 'row')}" if "num_rows" in result else ""
    lines = [f"## Scores\n\nOn {word(account.data)}{rows}{_picked(result)}.\n"]
    heads = ["metric", "this model", "standard error", *baselines]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for metric, value in scores.items():
        cells = [value, errors.get(metric), *(one.get(metric) for one in baselines.values())]
        lines.append(f"| {metric} | {' | '.join('not known' if one is None else f'{one:.4f}' for one in cells)} |")
    for source, others in result.get("others", {}).items():
        lines.append(f"\nOn {word(source)}: {', '.join(f'{name} {value:.4f}' for name, value in others.items())}.")
    share = share_kept(scores, baselines.get("teacher", {}), result["metric"])
    if share is not None:
        lines.append(f"\nIt keeps {100 * share:.1f} % of its teacher's {result['metric']}.")
    if errors:
        lines.append(
            "\nThe standard error is that of one draw of so many rows: of accuracy sqrt(p (1 - p) / N), else the "
            "spread over 100 bootstrap samples. It says nothing of other seeds."
        )
    return "\n".join(lines)


def _picked(result: Mapping[str, Any]) -> str:
    best = result.get("best")
    if best is None:
        return ""
    return f", which also picked these weights: the best by {result['metric']}, of epoch {best['epoch']:.4g}"


def _sizes(model: PreTrainedModel, account: Account) -> str:
    config, teacher = model.config, account.teacher
    own = [config.num_hidden_layers, config.hidden_size, model.num_parameters()]
    theirs = [] if teacher is None else [teacher.num_layers, teacher.width, _num_parameters(teacher, model)]
    heads = ["", "this model", *(["its teacher"] if theirs else [])]
    lines = ["## Size", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for place, what in enumerate(("layers", "width", "parameters")):
        cells = [
            f"{count:,}" if count is not None else "not known" for count in (own[place], *theirs[place : place + 1])
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    # Tied weights are one, and saved once.
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return "\n".join([*lines, "", f"The weights take {human_bytes(num_bytes)}."])


def _num_parameters(teacher: TeacherInfo, model: PreTrainedModel) -> int | None:
    """Parameters of a teacher by its configuration, for which nothing is drawn; None of one that is not known here."""
    settings = {name: value for name, value in teacher.config.items() if name != "model_type"}
    kind = AutoModelForCausalLM if model.can_generate() else AutoModelForSequenceClassification
    try:
        config = AutoConfig.for_model(teacher.model_type, **settings | {"num_labels": model.config.num_labels})
        with torch.device("meta"):
            return int(kind.from_config(config).num_parameters())
    except Exception:  # noqa: BLE001  (each model family raises errors of its own kinds)
        return None


def _training(account: Account) -> str:
    written = yaml.safe_dump(dict(account.settings), sort_keys=False, allow_unicode=True).rstrip()
    return (
        f"## How it was trained\n\n```yaml\n{written}\n```\n\n`training_args.json` has every argument of the Trainer, "
        "`history.jsonl` the losses and scores along the way, `metrics.json` the scores."
    )


def _use(name: str, model: PreTrainedModel, account: Account) -> str:
    """Commands that run as printed beside the model's folder and the rows of its scores."""
    own = "import trainer.student  # makes its classes known\n" if model.config.model_type == _OWN_CLASSES else ""
    if account.is_embedder:
        lines = ["from sentence_transformers import SentenceTransformer", "", f'model = SentenceTransformer("{name}")']
        lines.append('print(model.similarity(model.encode(["a text"]), model.encode(["another"])))')
        return "\n".join(["## How to use it", "", "```python", *lines, "```"])
    if not _answers(model):
        python = f'from transformers import AutoModel\n\nencoder = AutoModel.from_pretrained("{name}")'
        return f"## How to use it\n\n```python\n{own}{python}\n```\n\nIt is an encoder for classifiers to begin from."
    if _answers(model) == "text-generation":
        return _use_speaking(name, account)
    given = '"a text"'
    if account.rows is not None and account.rows.is_pairs:
        given = '{"text": "a text", "text_pair": "another"}'
    python = f'from transformers import pipeline\n\nprint(pipeline("{_answers(model)}", model="{name}")({given}))'
    data = word(account.data or "FILE")
    commands = [
        ["hsktrain", "evaluate", "--model", name, "--data", data],
        ["hsktrain", "predict", "--model", name, "--data", data, "--out", "predictions.tsv"],
    ]
    shell = "\n".join(map(shlex.join, commands))
    return (
        f"## How to use it\n\n```python\n{own}{python}\n```\n\n```bash\npip install 'hskcache[student]'\n{shell}\n```"
    )


def _use_speaking(name: str, account: Account) -> str:
    python = f'from transformers import pipeline\n\nprint(pipeline("text-generation", model="{name}")("a text"))'
    shell = shlex.join(["hsktrain", "evaluate", "--model", name, "--corpus", word(account.data or "FILE")])
    return f"## How to use it\n\n```python\n{python}\n```\n\n```bash\npip install 'hskcache[student]'\n{shell}\n```"


def _began(account: Account) -> str:
    return word(account.began) + (", with random weights" if account.random_weights else "")


def _is_hub_id(account: Account) -> bool:
    """True if a model began as one of the hub, as far as its name tells."""
    return not account.random_weights and not is_path(account.began)
