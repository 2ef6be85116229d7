"""Plain fine-tuning on labels: a teacher from a pre-trained encoder, or a student without any teacher."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hskcache import console, runtime
from hskcache.classes import single_classes
from hskcache.counted import counted
from hskcache.cut import tell_beyond, tell_cut
from hskcache.encoder import trained_length, weights_digest
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.evaluation import Scores, check_labels
from hskcache.inference import check_fit
from hskcache.locks import sole_writer
from hskcache.metrics import metrics_for, with_names
from hskcache.model.save import save_model
from hskcache.move.card import word
from hskcache.store.evaluation import Evaluation
from hskcache.store.files import sha256_hex
from hskcache.text import Examples, remembered
from hskcache.text.tokenize import reach_of
from trainer import chance
from trainer.run import processes, training
from trainer.run.baselines import Baselines
from trainer.run.card import Account, write_card
from trainer.run.checkpoints import CHECKPOINTS, claim, finish, last_checkpoint, step_of
from trainer.run.finetuner import Finetuner, Labelled
from trainer.run.progress import EvaluationLines
from trainer.run.request import FinetuneArguments
from trainer.run.resume import LogFirst, stopped
from trainer.run.selecting import Best
from trainer.run.training import Course, arguments_on, selection
from trainer.student import origin
from trainer.student.create import Interface, create_student
from trainer.student.token_types import token_types_after

# Where it was computed and what else the card tells by itself.
_NOT_TOLD = ("model", "called", "device", "save_steps", "report_to")


def finetune(
    arguments: FinetuneArguments, tokenizer: PreTrainedTokenizerBase, train: Labelled, dev: Labelled, out: Path
) -> dict[str, Any]:
    """Fine-tune on ``train`` and save in ``out`` the weights whose evaluation on ``dev`` is best.

    ``out`` becomes an ordinary checkpoint with its tokenizer, ``logs/`` for TensorBoard and ``metrics.json``. A run
    that was cut off goes on from its last epoch; a finished one is not run again. Returns the content of metrics.json:
    ``metric``, the one that picked; ``best``, its epoch, step and metrics; ``chance``, whether those are chance, see
    :func:`trainer.chance.record`; ``scores``, those metrics with their ``standard_errors`` and ``baselines``;
    ``epochs``, the metrics of every evaluation; and ``origin``, see :func:`trainer.student.origin.record`. Raises
    DataError if one of the two data sets is empty or has no labels; MismatchError if ``out`` holds another run; the
    model, the tokenizer and the labels do not fit each other; SpecError for an unknown metric, or bfloat16 on a device
    without it; TeacherError if the model cannot be loaded; Interrupted by SIGINT or SIGTERM in training, whose last
    step is saved.
    """
    metrics = metrics_for(train.examples.problem, arguments.metrics)
    metric = next(iter(metrics))
    _check(arguments, train, dev)
    out = out.resolve()
    with runtime.quiet(), ExitStack() as stack:
        model = create_student(arguments.model, _interface(arguments, tokenizer, train.examples), arguments.seed)
        for data in (train, dev):
            check_fit(model, data.rows)
            reach = reach_of(model, arguments.origin, arguments.max_length)
            tell_cut(data.rows.cut, len(data.rows), data.examples.source, reach)
            longest = int(data.rows.lengths.max(initial=0))
            tell_beyond(longest, trained_length(model), data.examples.source, arguments.origin)
        run = _run(arguments, model, tokenizer, train, dev)
        processes.connect(arguments.device)
        processes.on_first(lambda: stack.enter_context(sole_writer(out)))
        if finished := processes.on_first(lambda: claim(out, run)):
            console.say(f"{out} is finished already")
            return finished
        if not processes.on_first((out / CHECKPOINTS).exists):
            origin.tell_origin(arguments.model, _reads_pairs(tokenizer, train.examples))
        trainer = Finetuner(model, _training_arguments(arguments, metric, out), train, dev, metrics)
        best = Best(trainer.model, out / CHECKPOINTS, metric)
        named = with_names(metrics, dev.examples.label_names)
        baselines = Baselines(chance.majority(check_labels(dev.examples), named))
        lines = EvaluationLines("", metric, baselines)
        for callback in (LogFirst(), *selection(arguments.eval_steps, arguments.patience, metric), best, lines):
            trainer.add_callback(callback)
        checkpoint = processes.on_first(lambda: last_checkpoint(out))
        if checkpoint is not None and (state := stopped(checkpoint)) is not None:
            trainer.state = state
        else:
            if checkpoint is not None:
                console.say(f"going on from step {step_of(checkpoint)}")
            training.train(trainer, checkpoint, Course(out), arguments.save_steps)
        processes.wait()
        best.restore(trainer.state)
        result = _result(trainer, metric) | baselines.record() | origin.record(arguments.model, arguments.called)
        if processes.is_first():
            save_model(model, out, tokenizer)
            known = remembered.of_examples(train.examples, arguments.max_length, train.rows.cut)
            types = token_types_after(arguments.model, True, _reads_pairs(tokenizer, train.examples))
            remembered.save(replace(known, token_types=types), out)
            training.write_arguments(out, {"fine-tune": trainer.args})
            result |= _evaluation(model, arguments, dev, result)
            write_card(out, model, _account(arguments, train, dev, known), result)
            finish(out, result)
    return result


def _evaluation(
    model: PreTrainedModel, arguments: FinetuneArguments, dev: Labelled, result: Mapping[str, Any]
) -> dict[str, Any]:
    """The scores as a build takes them over from the folder of its teacher, and of which weights they are."""
    if arguments.bf16:
        # A build computes in float32 where nothing else is said.
        return {}
    evaluation = Evaluation(
        data=dev.examples.source,
        fingerprint=dev.examples.fingerprint,
        num_rows=len(dev.examples),
        max_length=arguments.max_length,
        metrics=result["scores"],
    )
    return {"evaluation": evaluation.model_dump(), "weights_sha256": weights_digest(model)}


def _account(arguments: FinetuneArguments, train: Labelled, dev: Labelled, known: remembered.Remembered) -> Account:
    settings = {name: value for name, value in asdict(arguments).items() if name not in _NOT_TOLD and value is not None}
    examples = train.examples
    line = f"- data: {word(examples.source)}, {counted(len(examples), 'row')}, fingerprint `{examples.fingerprint}`"
    random_weights = origin.has_no_weights(arguments.model)
    return Account(arguments.origin, random_weights, None, [line], settings, dev.examples.source, known)


def _run(
    arguments: FinetuneArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Labelled,
    dev: Labelled,
) -> dict[str, Any]:
    run = asdict(arguments) | {"tokenizer": tokenizer.name_or_path}
    if arguments.called is not None:
        # A model in memory lies in another folder in every call, and is known by what it holds.
        digest = sha256_hex(tokenizer.backend_tokenizer.to_str().encode())
        run |= {"model": arguments.called, "tokenizer": digest, "weights": weights_digest(model)}
    # These decide where and how often, not what: a run may go on elsewhere.
    del run["device"], run["save_steps"], run["report_to"], run["called"]
    return run | {"train": train.examples.fingerprint, "dev": dev.examples.fingerprint}


def _check(arguments: FinetuneArguments, train: Labelled, dev: Labelled) -> None:
    for examples in (train.examples, dev.examples):
        if examples.labels is None or not len(examples):
            examples.require_gold("to learn from and to be scored on")
            raise DataError(f"{examples.source} has no {'labels' if len(examples) else 'rows'}; fine-tuning needs both")
    _check_classes(train.examples)
    check_labels(dev.examples)
    ours, theirs = (
        (train.examples.problem, train.examples.label_names),
        (dev.examples.problem, dev.examples.label_names),
    )
    if ours != theirs:
        raise MismatchError(
            f"{train.examples.source} has {_classes(train)} and {dev.examples.source} has {_classes(dev)}; "
            "read both with the same classes"
        )
    remembered.of_examples(train.examples, arguments.max_length).check_pairs(dev.examples)
    if arguments.bf16 and arguments.device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        raise SpecError("--bf16 is asked for and this device has no bfloat16; leave it out")


def _check_classes(examples: Examples) -> None:
    labels = None if examples.labels is None else single_classes(examples.labels)
    if labels is not None and examples.problem == "classification" and (labels == labels[0]).all():
        raise DataError(
            f"every row of {examples.source} has the class {examples.label_names[int(labels[0])]}; there is nothing to "
            "learn from one class, so give rows of two or more"
        )


def _classes(data: Labelled) -> str:
    return f"classes {', '.join(data.examples.label_names)}" if data.examples.label_names else "scores"


def _training_arguments(arguments: FinetuneArguments, metric: str, out: Path) -> TrainingArguments:
    return arguments_on(
        arguments.device,
        out / CHECKPOINTS,
        num_train_epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch_size,
        gradient_accumulation_steps=arguments.gradient_accumulation,
        warmup_steps=arguments.warmup_ratio,
        weight_decay=arguments.weight_decay,
        bf16=arguments.bf16,
        seed=arguments.seed,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model=metric,
        logging_steps=0.01,
        report_to=arguments.report_to,
        run_name=out.name,
        ddp_find_unused_parameters=False,
    )


def _interface(arguments: FinetuneArguments, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> Interface:
    return Interface(
        vocab_size=len(tokenizer),
        label_names=examples.label_names,
        problem=examples.problem,
        pad_token_id=tokenizer.pad_token_id or 0,
        max_positions=max(512, arguments.max_length),
        type_vocab_size=2 if "token_type_ids" in tokenizer.model_input_names else 1,
        reads_pairs=_reads_pairs(tokenizer, examples),
    )


def _reads_pairs(tokenizer: PreTrainedTokenizerBase, examples: Examples) -> bool:
    return examples.pairs is not None and "token_type_ids" in tokenizer.model_input_names


def _result(trainer: Finetuner, metric: str) -> dict[str, Any]:
    epochs = [
        {
            "epoch": entry["epoch"],
            "step": entry["step"],
            "metrics": {name: entry[f"eval_{name}"] for name in trainer.metrics},
        }
        for entry in trainer.state.log_history
        if f"eval_{metric}" in entry
    ]
    best = next(epoch for epoch in epochs if epoch["step"] == trainer.state.best_global_step)
    # An epoch of an earlier process is judged again, by the weights that were loaded as the best.
    scores = trainer.scores.get(best["step"]) or processes.on_first(trainer.score)
    told = {"scores": dict(best["metrics"]), **(scores.uncertainty() if isinstance(scores, Scores) else {})}
    return {"metric": metric, **told, "best": best, **chance.record(scores), "epochs": epochs}
