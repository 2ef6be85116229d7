"""A run from what it is asked for with to its end: the doors of the command line and of Python."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hskcache import console, runtime
from hskcache.disk import writing_to
from hskcache.metrics import metrics_for
from hskcache.text import load_tokenizer, tokenized
from hskcache.text.remembered import MAX_LENGTH
from trainer.run.checkpoints import begun, reached, require_room
from trainer.run.finetune import finetune as run_finetune
from trainer.run.finetuner import Labelled
from trainer.run.finished import asked, remember
from trainer.run.fit import fit as run_fit
from trainer.run.prepare import prepare_fit
from trainer.run.request import FinetuneArguments, FinetuneRequest, FitRequest, Machine, Tuning
from trainer.run.training import check_report
from trainer.student.vocabulary import tokenizer_for


def fit(request: FitRequest, out: Path | str, machine: Machine | None = None, tells: bool = True) -> dict[str, Any]:
    """Train a student and save it in ``out``; the same request goes on where a cut-off run stopped.

    ``machine``: how to compute; None: as :class:`Machine` has it by default. ``tells``: whether what is known of the
    rows and the teacher is said, which a second run of the same need not. Returns what metrics.json holds, see
    :func:`trainer.run.fit.fit`. Raises CacheError if something is missing, damaged or does not fit, which is told
    before anything is written; Interrupted by SIGINT or SIGTERM, after which the same request goes on.
    """
    out, machine = Path(out), machine or Machine()
    check_report(machine.report_to)
    machine = replace(machine, device=runtime.resolve_device(machine.device))
    require_room(out)
    with console.going_on_from(lambda: reached(out)):
        facts = asked(request)
        job = prepare_fit(request, machine, tells)
        with writing_to(out, "here"):
            result = run_fit(job, out, machine)
            remember(facts, out)
            return result


def finetune(request: FinetuneRequest, out: Path | str) -> dict[str, Any]:
    """Fine-tune a model on labels and save it in ``out``; the same request goes on where a cut-off run stopped.

    Returns what metrics.json holds, see :func:`trainer.run.finetune.finetune`. Raises CacheError if something is
    missing or does not fit, which is told before anything is written; Interrupted by SIGINT or SIGTERM, after which the
    same request goes on.
    """
    check_report(request.report_to)
    out, vocabulary, layout = Path(out), tokenizer_for(request.model, request.tokenizer), request.layout
    # Without a gold label there is nothing to learn from here.
    layout = layout.of_labelled_rows()
    task = layout.task
    require_room(out)
    # A run of before tasks told their lengths goes on with its own.
    known = begun(out).get("max_length") or (task.max_length if task else None) or MAX_LENGTH
    max_length = request.max_length or known
    for source in (request.data, request.eval_data):
        layout.check(source)
    with console.going_on_from(lambda: reached(out)):
        train = layout.read(request.data)
        dev = layout.read(request.eval_data, train.label_names, train.problem)
        tokenizer = load_tokenizer(vocabulary)
        device = runtime.resolve_device(request.device)
        names = tuple(task.metrics) if task else ()
        if request.metric is not None:
            names = tuple(metrics_for(train.problem, names, request.metric))
        asked = {one.name: getattr(request, one.name) for one in fields(Tuning)}
        arguments = FinetuneArguments(**asked | {"device": device}, max_length=max_length, metrics=names)
        rows = [tokenized(examples, tokenizer, max_length) for examples in (train, dev)]
        with writing_to(out, "here"):
            return run_finetune(arguments, tokenizer, Labelled(train, rows[0]), Labelled(dev, rows[1]), out)
