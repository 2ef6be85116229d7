"""A build of real rows against the script that people write: time and bytes."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.folders import write_head
from benchmarks.harness.jobs import make_job, make_spec
from benchmarks.harness.measure import environment, ratio, take_turns
from hskcache import units

if TYPE_CHECKING:
    from hskcache.teacher.load import Teacher
    from hskcache.text import Examples

SCRIPT, BUILD = "script", "build"
BATCH_ROWS = 32


def chunked(examples: "Examples", num_rows: int) -> list["Examples"]:
    """The rows in chunks, each a data set of its own."""
    from hskcache.text.examples import fingerprint

    chunks = []
    for first in range(0, len(examples), num_rows):
        texts, labels = examples.texts[first : first + num_rows], examples.labels
        labels = None if labels is None else labels[first : first + num_rows]
        digest = fingerprint(texts, None, labels, examples.label_names)
        chunks.append(replace(examples, texts=texts, labels=labels, fingerprint=digest))
    return chunks


def script(teacher: "Teacher", texts: Sequence[str], folder: Path, length: int) -> None:
    """Save whatever the teacher gives of rows that are padded to the maximum, a file a batch."""
    import torch

    for first in range(0, len(texts), BATCH_ROWS):
        batch = list(texts[first : first + BATCH_ROWS])
        inputs = teacher.tokenizer(
            batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(teacher.device)
        with torch.no_grad():
            output = teacher.model(**inputs, output_hidden_states=True, output_attentions=True)
        kept = {
            "logits": output.logits.cpu(),
            "hidden_states": [states.cpu() for states in output.hidden_states],
            "attentions": [weights.cpu() for weights in output.attentions],
        }
        torch.save(kept, folder / f"{first}.pt")


class Sides:
    """The script and the build, each over one chunk after the other, in a folder that is emptied after each run."""

    def __init__(self, teacher: "Teacher", chunks: list["Examples"], folder: Path, given: dict[str, Any]) -> None:
        self.teacher, self.folder, self.given = teacher, folder, given
        self.chunks = {side: cycle(chunks) for side in (SCRIPT, BUILD)}
        self.spec = make_spec(given["keep"], given["encoding"], max_length=given["length"])
        self.num_bytes: dict[str, list[int]] = {SCRIPT: [], BUILD: []}

    def works(self) -> dict[str, Callable[[], None]]:
        """Both, by name."""
        return {SCRIPT: self.by_script, BUILD: self.by_build}

    def by_script(self) -> None:
        """One chunk, tokenized, run with eager attention and saved."""
        from hskcache.attention import IMPLEMENTATION

        self.teacher.model.set_attn_implementation("eager")
        script(self.teacher, next(self.chunks[SCRIPT]).texts, self.folder, self.given["length"])
        self.teacher.model.set_attn_implementation(IMPLEMENTATION)
        self.num_bytes[SCRIPT].append(sum(path.stat().st_size for path in self.folder.glob("*.pt")))

    def by_build(self) -> None:
        """One chunk, from tokenizing to a finished cache."""
        from hskcache.build.build import build

        manifest = build(make_job(self.teacher, next(self.chunks[BUILD]), self.spec), self.folder / "c.hsk")
        self.num_bytes[BUILD].append(sum(record.num_bytes for record in manifest.records))

    def empty(self) -> None:
        """Remove what the last run has left."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@click.command()
@options.teacher_shape
@options.count("--rows", 512, "Of SST-2's training rows, at most 20,000.")
@options.count("--chunk-rows", 256, "Rows of one run of either side; few make one batch of all lengths.")
@options.length("Tokens of a row at most, to which the script pads.")
@options.encoding
@options.keep
@options.clock
@options.glue
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Build caches of real rows, and save what a teacher gives as most scripts do, taking turns over the same chunks.

    The script pads every row to the maximum, asks for all hidden states and attentions (which needs eager attention)
    and saves them batch by batch. Both begin with texts in memory and end with files; loading the teacher is outside.
    """
    from hskcache.runtime import quiet
    from hskcache.text.layout import Layout

    about = environment(given["device"])
    folder = work / "build"
    folder.mkdir(parents=True, exist_ok=True)
    num_rows = min(given["rows"], 20_000)
    rows = write_head(glue / "SST-2" / "train.tsv", folder / f"{num_rows}.tsv", num_rows + 1)
    with quiet():
        examples = Layout("sst2").read(str(rows))
        tokenizer = synthetic.train_tokenizer(folder / f"tokenizer-{num_rows}", list(examples.texts))
        teacher = synthetic.random_teacher(given["teacher"], work, given["device"], tokenizer=tokenizer)
    chunks = chunked(examples, given["chunk_rows"])
    with tempfile.TemporaryDirectory(prefix="build-", dir=work) as place:
        sides = Sides(teacher, chunks, Path(place), given)
        times = take_turns("chunks", sides.works(), len(chunks), clock=given["clock"], on_done=sides.empty)
    sizes = {side: sum(num_bytes) / len(num_bytes) for side, num_bytes in sides.num_bytes.items()}
    tokens = [len(ids) for ids in teacher.tokenizer(examples.texts)["input_ids"]]
    lines = [
        [side, f"{times.median(side):.3f}", ratio(times, side, BUILD), units.human_bytes(int(sizes[side]))]
        for side in (SCRIPT, BUILD)
    ]
    targets = [
        report.Target("script / build, time", times.ratio(SCRIPT, BUILD), 6.0, at_least=True),
        report.Target("script / build, bytes", sizes[SCRIPT] / sizes[BUILD], 500.0, at_least=True),
    ]
    title = (
        f"{len(chunks)} chunks of {given['chunk_rows']} rows of {sum(tokens) / len(tokens):.1f} tokens on average, "
        f"{given['teacher']} teacher, {given['keep']} {given['encoding']}, {about['device']}"
    )
    header = ("", f"s a chunk ({given['clock']})", "/ build (quartiles)", "bytes a chunk")
    facts = {"settings": given, "environment": about, "num_bytes": sizes, "num_tokens": sum(tokens), **times.facts()}
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
