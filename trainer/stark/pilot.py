"""The pilot study: how a teacher's score and its confidence fall as weights are removed at random [StarK, Figure 1].

A few percent of random weights cost a teacher hardly any accuracy and take away some of its confidence; that part of
what it knew was of no use to itself and may be hard on a student. Every cell, a share and a seed, is a file in
OUT/cells once it is done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hskcache.classes import require_single
from hskcache.cut import tell_cut
from hskcache.disk import writing_to
from hskcache.evaluation import answers, check_labels
from hskcache.inference import predict
from hskcache.locks import sole_writer
from hskcache.metrics import Metric, metrics_for
from hskcache.sparsity.levels import kept_weights, level_name, num_removed
from hskcache.sparsity.weights import matrices, random_weights, without_weights
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples, TokenizedRows, tokenized
from hskcache.text.layout import Layout
from hskcache.text.tokenize import reach_of
from trainer.run.checkpoints import write_json
from trainer.stark.confidence import confidence
from trainer.stark.folder import RESULTS, Folder, remade
from trainer.stark.shares import CONFIDENCE, Share, plot, spread

PLOT = "pilot.png"
_CELLS = "cells"


class Cell(NamedTuple):
    """A share of weights, in percent, and the seed that draws them; without any to draw, the seed is None."""

    percent: int
    seed: int | None

    @property
    def file(self) -> str:
        """File of its result."""
        return f"{level_name(self.percent)}{'' if self.seed is None else f'-seed{self.seed}'}.json"


@dataclass(frozen=True)
class PilotRequest:
    """Request for a study.

    ``teacher``: folder or hub id; ``data``: labelled rows to score it on; ``percents``: shares of weights to remove;
    ``num_seeds``: draws of each.
    """

    teacher: str
    data: str
    layout: Layout
    percents: tuple[int, ...]
    num_seeds: int
    max_length: int
    device: str


@dataclass(frozen=True, eq=False)
class Pilot:
    """A study, apart from its folder.

    ``examples``: labelled rows that it is scored on. ``metrics``: what it is scored by; the first stands in the plot.
    """

    teacher: Teacher
    examples: Examples
    rows: TokenizedRows
    metrics: Mapping[str, Metric]
    asked: PilotRequest

    @property
    def cells(self) -> list[Cell]:
        """All there are to do, those of a seed beside each other."""
        dense = [Cell(0, None)] if 0 in self.asked.percents else []
        above = [percent for percent in self.asked.percents if percent > 0]
        return dense + [Cell(percent, seed) for seed in range(self.asked.num_seeds) for percent in above]

    @property
    def num_weights(self) -> int:
        """Number of weights in the matrices that they are removed from."""
        return sum(weight.numel() for layer in matrices(self.teacher.model) for weight in layer)

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that decide the result of a cell, as JSON values."""
        return {
            "study": "pilot",
            "teacher": self.teacher.info.weights_sha256,
            "data": self.examples.fingerprint,
            "max_length": self.asked.max_length,
            "metrics": list(self.metrics),
        }


def begin(asked: PilotRequest) -> Pilot:
    """Load the teacher, read the rows and tokenize them.

    Raises CacheError for whatever of it is not there, cannot be read or does not fit.
    """
    teacher = load_teacher(asked.teacher, asked.device)
    require_single(asked.teacher, teacher.model.config, "sparse teachers are made")
    # Asked before the rows are read.
    matrices(teacher.model)
    examples = asked.layout.read_for(teacher.info.name, teacher.model.config, asked.data)
    examples.require_texts("the pilot study")
    check_labels(examples)
    rows = tokenized(examples, teacher.tokenizer, asked.max_length)
    tell_cut(rows.cut, len(rows), asked.data, reach_of(teacher.model, asked.teacher, asked.max_length))
    task = asked.layout.task
    metrics = metrics_for(examples.problem, task.metrics if task else None)
    return Pilot(teacher, examples, rows, metrics, asked)


def run(pilot: Pilot, out: Path, on_cells: Callable[[int], None]) -> list[Share]:
    """Do the cells that are not done yet, draw the plot and tell of all.

    ``out``: its folder; a finished one may get more shares and seeds. ``on_cells``: called with the number of cells
    that are done since the last call. Raises MismatchError if ``out`` holds something else, or a study of another
    teacher or of other rows; CacheError if the folder cannot be written.
    """
    with writing_to(out, "here"), sole_writer(out):
        Folder(out).claim(pilot.identity)
        (out / _CELLS).mkdir(exist_ok=True)
        files = {cell: out / _CELLS / cell.file for cell in pilot.cells}
        results = {cell: found for cell, file in files.items() if (found := remade(file)) is not None}
        on_cells(len(results))
        for cell, found in _measured(pilot, [cell for cell in pilot.cells if cell not in results]):
            write_json(files[cell], found)
            results[cell] = found
            on_cells(1)
        shares = _shares(pilot, results)
        plot(shares, (Path(pilot.examples.source).name, len(pilot.examples)), out / PLOT)
        write_json(out / RESULTS, {"shares": [asdict(share) for share in shares]})
    return shares


def _measured(pilot: Pilot, cells: Sequence[Cell]) -> Iterator[tuple[Cell, dict[str, float]]]:
    """Measures of the teacher in each cell, one after the other; it is whole again afterwards."""
    model, seed, drawn_LP = pilot.teacher.model, None, None
    for cell in cells:
        if cell.seed is None:
            yield cell, _measures(pilot)
            continue
        if drawn_LP is None or cell.seed != seed:
            seed, drawn_LP = cell.seed, random_weights(model, cell.seed)
        with without_weights(model, kept_weights(drawn_LP, cell.percent, "global")):
            measures = _measures(pilot)
        yield cell, measures


def _measures(pilot: Pilot) -> dict[str, float]:
    teacher, labels = pilot.teacher, check_labels(pilot.examples)
    logits_NC = predict(teacher.model, pilot.rows, pad_token_id=teacher.pad_token_id)
    predictions = answers(logits_NC, pilot.examples.problem)
    sure = confidence(logits_NC)
    scores = {name: metric(predictions, labels) for name, metric in pilot.metrics.items()}
    return scores | ({} if sure is None else asdict(sure))


def _shares(pilot: Pilot, results: Mapping[Cell, Mapping[str, float]]) -> list[Share]:
    shares = []
    for percent in pilot.asked.percents:
        draws = [results[cell] for cell in pilot.cells if cell.percent == percent]
        # A teacher that a draw has broken may answer nothing finite, and has no confidence then.
        names = [name for name in (*pilot.metrics, *CONFIDENCE) if all(name in draw for draw in draws)]
        measures = {name: spread([draw[name] for draw in draws]) for name in names}
        shares.append(Share(percent, num_removed(pilot.num_weights, percent), len(draws), measures))
    return shares
