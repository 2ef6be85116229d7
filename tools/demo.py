"""The main job from end to end on synthetic text: a teacher, its cache, and students to compare.

Nothing is downloaded and no hub is asked. Every step is one of the commands that a user would type, and is printed
before it runs; what is finished is not run again.
"""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
# tools/demo names another folder than the source's where that cannot be written.
WORK = Path(os.environ.get("TOOLS_FOLDER", ROOT)) / "runs" / "demo"
LIVE = "teacher in the loop"
KEEP = ("--keep", "1l_10t_0.1h", "--student-layers", "2", "--max-length", "64")
TEACHER = {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512}
STUDENT = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256}
# The teacher has seen more rows than its students will: knowledge that their labels alone do not hold.
STUDENT_SHARE = 8
# A small student trained from random weights takes larger steps than the papers' pre-trained ones.
EPOCHS = {"hidden": 4, "prediction": 6}
RATE = "1.0e-3"
BATCH = 32
# Of a step, and of all that is no training, as measured on two slow cores with nothing else on them; on faster ones it
# took 1 min 35 s where these tell 3.9 minutes.
SECONDS = {"teacher": 0.1, "student": 0.033, "else": 25}


def run(command: str, *arguments: str) -> Any:
    """Run one of our commands in this process and return what it prints as JSON."""
    from hskcache.cli import main as hskcache
    from trainer.cli import main as hsktrain

    click.secho(f"\n$ {command} {' '.join(arguments)}", err=True, bold=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        group = {"hskcache": hskcache, "hsktrain": hsktrain}[command]
        group.main([*arguments, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


def write_data(folder: Path, rows: int) -> None:
    """Generate the synthetic text, the few rows of it that the students see, and a WordPiece tokenizer."""
    if (folder / "tokenizer").is_dir():
        with (folder / "train.tsv").open(encoding="utf-8") as file:
            found = sum(1 for _ in file) - 1
        if found != rows:
            raise click.ClickException(f"{folder} has {found} rows, not {rows}; give --fresh, or another --work")
        return
    spec = importlib.util.spec_from_file_location("generate", ROOT / "data" / "demo" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.write(folder, rows, 1000, seed=0)
    lines = (folder / "train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "few.tsv").write_text("".join(lines[: 1 + rows // STUDENT_SHARE]), encoding="utf-8")
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Train a tokenizer on the training rows and save it as transformers loads it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=list(special.values()), show_progress=False)
    wordpiece.train([str(folder / "train.tsv")], trainer)
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, wordpiece.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=wordpiece, model_input_names=names, **special)
    partial = folder / "tokenizer.partial"
    tokenizer.save_pretrained(partial)
    partial.rename(folder / "tokenizer")


def write_config(path: Path, shape: dict[str, int]) -> str:
    """A BERT configuration without weights."""
    path.write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 64, "type_vocab_size": 2, **shape}))
    return str(path)


def compare_students(work: Path, cache: Path, teacher: Path) -> dict[str, Any]:
    """The same student from labels, logits and the cache, and some steps with the teacher in the loop."""
    epochs = {f"{stage}.epochs": number for stage, number in EPOCHS.items()}
    rates = {f"{stage}.learning_rate": RATE for stage in ("labels", *EPOCHS)}
    return dict(
        run(
            "hsktrain", "compare", "--cache", str(cache), "--student", write_config(work / "student.json", STUDENT),
            "--eval-data", str(work / "dev.tsv"), "--task", "sst2", "--teacher", str(teacher),
            *(word for key, value in (epochs | rates).items() for word in ("--set", f"{key}={value}")),
            "--out", str(work / "students"),
        )
    )  # fmt: skip


def print_table(teacher: dict[str, Any], compared: dict[str, Any]) -> None:
    """Scores, pace and bytes."""
    from rich.console import Console
    from rich.table import Table

    from hskcache.units import human_bytes

    table = Table(
        "student", "accuracy", "s a step", "knowledge on disk", title="Synthetic sentiment text (not real data)"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("(the teacher)", f"{teacher['best']['metrics']['accuracy']:.3f}", "", "")
    sides = compared["sides"]
    for name, side in sides.items():
        size = human_bytes(side["num_bytes"]) if side["num_bytes"] else ""
        score = "" if side["mean"] is None else f"{side['mean']:.3f} ± {side['interval']:.3f}"
        table.add_row(
            name, score, f"{side['seconds_per_step']:.4f}", f"{size} if stored whole" if name == LIVE else size
        )
    console = Console()
    console.print()
    console.print(table)
    share = sides["cache"]["num_bytes"] / sides[LIVE]["num_bytes"]
    console.print(
        f"The cache holds {100 * share:.2f} % of the bytes of all hidden states in float32. Training from it loads no "
        "teacher. With the teacher in the loop only some steps were taken, for their time. ± is the 95 % interval over "
        "draws of as many rows to score."
    )


def tell_what_is_coming(rows: int, epochs: int) -> None:
    """Say what will be done and how long it takes; what is finished takes no time."""
    steps = rows // BATCH * epochs, rows // STUDENT_SHARE // BATCH * sum(EPOCHS.values())
    minutes = (steps[0] * SECONDS["teacher"] + 3 * steps[1] * SECONDS["student"] + SECONDS["else"]) / 60
    click.echo(
        f"Coming: a teacher learns {rows:,} rows ({steps[0]:,} steps); its knowledge of {rows // STUDENT_SHARE:,} of "
        f"them is cached; a student learns these from their labels, from the logits and from the cache ({steps[1]:,} "
        f"steps each), and takes some steps with the teacher in the loop, for their time. {minutes / 2.4:.1f} to "
        f"{minutes:.1f} minutes on two idle cores, by their speed; twice as long beside two busy programs.",
        err=True,
    )


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK, help="Where everything goes.")
@click.option("--rows", default=16_000, show_default=True, help="Training rows of the teacher; students see an eighth.")
@click.option("--epochs", default=3, show_default=True, help="Of the teacher.")
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on from what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(work: Path, rows: int, epochs: int, fresh: bool, as_json: bool) -> None:
    """Train a teacher on synthetic text, cache its knowledge, and compare what students learn from."""
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    tell_what_is_coming(rows, epochs)
    write_data(work, rows)
    train, dev, teacher, cache = (work / name for name in ("train.tsv", "dev.tsv", "teacher", "demo.hsk"))
    model = write_config(work / "teacher.json", TEACHER)
    made = run(
        "hsktrain", "finetune", "--model", model, "--tokenizer", str(work / "tokenizer"), "--data", str(train),
        "--eval-data", str(dev), "--task", "sst2", "--epochs", str(epochs), "--lr", "3e-4", "--max-length", "64",
        "--out", str(teacher),
    )  # fmt: skip
    source = ("--teacher", str(teacher), "--data", str(work / "few.tsv"), "--task", "sst2", *KEEP)
    run("hskcache", "estimate", *source)
    run("hskcache", "build", *source, "--out", str(cache))
    run("hskcache", "verify", str(cache))
    compared = compare_students(work, cache, teacher)
    if as_json:
        click.echo(json.dumps({"teacher": made, **compared}, indent=2))
    else:
        print_table(made, compared)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.insert(0, str(ROOT))
    from hskcache.allocator import keep_freed_memory
    from hskcache.threads import bound_waiting

    bound_waiting()
    keep_freed_memory()
    main()
