"""A tagger goes the whole way: its cache, its student, scores and answers, against transformers run by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from commanded import parsed, refused, run
from taggers import TAGS, Answered, Tagged, by_hand, tagged, tagger, written
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification

from hskcache import open_cache
from hskcache.cache import Cache
from hskcache.entities import entity_counts
from hskcache.inference import predict
from trainer.cli import main as hsktrain
from trainer.fidelity import cached_rows
from trainer.loading import KnowledgeLoader
from trainer.losses.matches import Matches
from trainer.recipe import LabelTerm, Losses, SoftTerm
from trainer.source.live import live_source
from trainer.source.objective import Objective
from trainer.source.source import Slice

ROWS, DEV, LENGTH = tagged(30), tagged(12, seed=1), 14
BUILT = ("--task", "conll", "--keep", "full", "--attention", "full", "--student-layers", 2)
SHARDS = ("--max-length", LENGTH, "--shard-rows", 8, "--token-budget", 60, "--device", "cpu")


def train(*args: object) -> Result:
    return CliRunner().invoke(hsktrain, list(map(str, args)), catch_exceptions=False)


def trained(*args: object) -> Result:
    result = train(*args)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A folder with a tagger, its rows and the cache of these."""
    folder = tmp_path_factory.mktemp("tagging")
    teacher = tagger(tiny_tokenizer_dir, folder / "teacher")
    data = written(ROWS, folder / "eng.train")
    written(DEV, folder / "eng.testa")
    build = run("build", "--teacher", teacher, "--data", data, *BUILT, *SHARDS, "--out", folder / "c")
    assert build.exit_code == 0, build.output
    trained("create", "--from", teacher, "--layers", "2,4", "--out", folder / "start")
    return folder


@pytest.fixture(scope="module")
def cache(place: Path) -> Cache:
    return open_cache(place / "c")


@pytest.fixture(scope="module")
def answered(place: Path) -> list[Answered]:
    return [by_hand(place / "teacher", row, LENGTH) for row in ROWS]


def test_a_cache_holds_the_logits_of_each_words_first_piece(cache: Cache, answered: list[Answered]) -> None:
    rows = list(cache)
    for row, by_transformers, (_, tags) in zip(rows, answered, ROWS, strict=True):
        assert row["positions"].tolist() == by_transformers.positions
        assert row["tags"].tolist() == [TAGS.index(tags[number]) for number in by_transformers.numbers]
        np.testing.assert_allclose(row["logits"], by_transformers.logits, atol=2e-5)
    assert sum(len(row["positions"]) for row in rows) < sum(len(words) for words, _ in ROWS), "some words are lost"


def test_the_commands_take_it(place: Path, cache: Cache, tmp_path: Path) -> None:
    folder, sources = place / "c", ("--teacher", place / "teacher", "--data", place / "eng.train", "--device", "cpu")
    assert parsed("verify", folder, "--deep")["ok"]
    report = parsed("audit", folder, "--teacher", place / "teacher", "--device", "cpu")
    assert report["ok"]
    assert {layer["kind"] for layer in report["layers"]} == {"logits", "hidden", "attention"}
    assert "tags of words" in run("info", folder).output
    facts = parsed("view", folder, 3)
    assert [word["position"] for word in facts["words"]] == cache[3]["positions"].tolist()
    answers = [TAGS[number] for number in cache[3]["logits"].argmax(1)]
    assert [word["teacher"] for word in facts["words"]] == answers
    assert parsed("stats", folder)["answers"]
    for done in (
        run("report", folder, "--out", tmp_path / "page.html"),
        run("export", folder, tmp_path / "c.h5"),
        run("import", tmp_path / "c.h5", tmp_path / "again"),
        run("extract", folder, "--view", "1l_0.5h", "--out", tmp_path / "small"),
        run("verify", tmp_path / "small", "--deep"),
    ):
        assert done.exit_code == 0, done.output
    assert open_cache(tmp_path / "again").id == cache.id
    assert [one.tolist() for one in open_cache(tmp_path / "small").column("logits")] == [
        one.tolist() for one in cache.column("logits")
    ]
    assert parsed("diff", folder, tmp_path / "again")["same"]
    for field in ("inputs", "logits"):
        mended = tmp_path / f"mended-{field}"
        shutil.copytree(folder, mended)
        (shard, *_) = sorted((mended / field).glob("*.zip"))
        shard.unlink()
        assert run("repair", mended, *sources).exit_code == 0
        assert parsed("verify", mended, "--deep")["ok"]
    shutil.copytree(folder, tmp_path / "longer")
    more = ("append", tmp_path / "longer", "--teacher", place / "teacher", "--data", place / "eng.testa")
    assert run(*more, "--device", "cpu").exit_code == 0
    assert len(open_cache(tmp_path / "longer")) == len(ROWS) + len(DEV)
    other = ("--teacher", place / "teacher", "--add-field", "logits", "--name", "second", "--out", tmp_path / "longer")
    assert run("build", *other, "--device", "cpu").exit_code == 0
    assert parsed("verify", tmp_path / "longer", "--deep")["ok"]
    grown = open_cache(tmp_path / "longer")
    for own, second in zip(grown.column("logits"), grown.column("second"), strict=True):
        np.testing.assert_allclose(own, second, atol=2e-5)


def test_losses_are_means_over_words_and_slices_add_up(place: Path, cache: Cache, answered: list[Answered]) -> None:
    student = AutoModelForTokenClassification.from_pretrained(place / "start").eval()
    losses = Losses(soft=SoftTerm(temperature=2.0), label=LabelTerm())
    objective = Objective(student, losses, Matches())

    def terms(world_size: int) -> torch.Tensor:
        loaders = [
            KnowledgeLoader(cache, batch_size=30, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        with torch.inference_mode():
            slices = [objective(batch)[1] for loader in loaders for batch in loader]
        assert len(slices) == world_size
        return torch.stack([sum(one[name] for one in slices) for name in ("soft", "label")])

    ours, teacher, tags = [], [], []
    for row, own in zip(ROWS, answered, strict=True):
        ours.append(torch.from_numpy(by_hand(place / "start", row, LENGTH).logits))
        teacher.append(torch.from_numpy(own.logits))
        tags += [TAGS.index(row.tags[number]) for number in own.numbers]
    student_PC, teacher_PC = torch.cat(ours), torch.cat(teacher)
    soft = F.cross_entropy(student_PC / 2, F.softmax(teacher_PC / 2, -1))
    expected = torch.stack([soft, F.cross_entropy(student_PC, torch.tensor(tags))])
    for world_size in (1, 3):
        torch.testing.assert_close(terms(world_size), expected, rtol=1e-5, atol=1e-5)


def test_the_loss_to_the_labels_is_that_of_transformers(place: Path, cache: Cache) -> None:
    (batch,) = KnowledgeLoader(cache, batch_size=30)
    student = AutoModelForTokenClassification.from_pretrained(place / "start").eval()
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    assert batch.labels is not None
    labels.view(-1)[batch.answered] = batch.labels
    with torch.inference_mode():
        expected = student(**batch.inputs, labels=labels).loss
        loss, _ = Objective(student, Losses(label=LabelTerm()), Matches())(batch)
    torch.testing.assert_close(loss, expected)


def test_a_teacher_in_the_loop_gives_the_same_batches(place: Path, cache: Cache) -> None:
    from hskcache.text.layout import Layout

    spec = cache.manifest.request.spec
    live = live_source(str(place / "teacher"), str(place / "eng.train"), Layout(task_name="conll"), spec, "cpu")
    losses = Losses(soft=SoftTerm(), label=LabelTerm())
    pairs = zip(KnowledgeLoader(cache, batch_size=8), live.loader(losses, Slice(8, 0, 1, 1, "cpu"), 0), strict=True)
    for ours, theirs in pairs:
        assert ours.row_ids == theirs.row_ids
        assert ours.num_answers == theirs.num_answers > 8
        torch.testing.assert_close(ours.answered, theirs.answered)
        torch.testing.assert_close(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", ["mud", "labels", "logits", "tinybert-task"])
def test_a_student_learns_by_every_recipe(place: Path, tmp_path: Path, recipe: str) -> None:
    stages = {"mud": ("hidden", "prediction"), "tinybert-task": ("intermediate", "prediction")}
    epochs = [part for stage in stages.get(recipe, ()) for part in ("--set", f"{stage}.epochs=1")]
    fitted = ("fit", "--cache", place / "c", "--student", place / "start", "--recipe", recipe, *epochs)
    trained(*fitted, "--eval-data", place / "eng.testa", "--out", tmp_path / "student", "--device", "cpu")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "student")
    assert tuple(model.config.id2label[number] for number in range(len(TAGS))) == TAGS
    scored = json.loads((tmp_path / "student" / "metrics.json").read_text())
    assert scored["metric"] == "entity_f1"
    assert {"entity_f1", "entity_precision", "entity_recall", "accuracy"} == scored["scores"].keys()


def scores_by_hand(folder: Path, rows: list[Tagged]) -> dict[str, float]:
    """Entities and accuracy of all words, those without an answer among them."""
    answers, gold = np.empty(len(rows), object), np.empty(len(rows), object)
    for number, row in enumerate(rows):
        own = by_hand(folder, row, LENGTH)
        answers[number] = np.full(len(row.words), -1)
        answers[number][own.numbers] = own.logits.argmax(1)
        gold[number] = np.array([TAGS.index(tag) for tag in row.tags])
    counts = entity_counts(answers, gold, TAGS)
    right = (np.concatenate(answers) == np.concatenate(gold)).mean()
    measures = {f"entity_{name}": getattr(counts, name) for name in ("f1", "precision", "recall")}
    return measures | {"accuracy": right}


def test_scores_and_answers_are_of_every_word(place: Path, tmp_path: Path) -> None:
    dev, out = place / "eng.testa", tmp_path / "answers.jsonl"
    asked = ("--model", place / "start", "--data", dev, "--task", "conll", "--max-length", LENGTH, "--device", "cpu")
    found = json.loads(trained("evaluate", *asked, "--json").stdout)
    assert found["metrics"] == pytest.approx(scores_by_hand(place / "start", DEV))
    trained("predict", *asked, "--out", out)
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [answer["text"] for answer in answers] == [word for words, _ in DEV for word in words]
    assert [answer["index"] for answer in answers] == [row for row, (words, _) in enumerate(DEV) for _ in words]
    lost = [answer for answer in answers if answer["prediction"] is None]
    assert 0 < len(lost) < len(answers)
    by_number = {(answer["index"], answer["word"]): answer["prediction"] for answer in answers}
    for index, row in enumerate(DEV):
        own = by_hand(place / "start", row, LENGTH)
        expected = {(index, number): TAGS[best] for number, best in zip(own.numbers, own.logits.argmax(1), strict=True)}
        assert {key: tag for key, tag in by_number.items() if key[0] == index and tag is not None} == expected


def test_a_student_is_compared_with_the_teachers_tags(place: Path, cache: Cache) -> None:
    asked = ("predict", "--model", place / "start", "--cache", place / "c", "--device", "cpu", "--json")
    found = json.loads(trained(*asked).stdout)
    student = AutoModelForTokenClassification.from_pretrained(place / "start")
    shards = range(len(cache.shards))
    ours = np.concatenate([predict(student, cached_rows(cache, shard), pad_token_id=0) for shard in shards])
    theirs = np.concatenate(list(cache.column("logits")))
    assert found["num_words"] == len(theirs)
    assert found["fidelity"]["agreement"] == pytest.approx((ours.argmax(1) == theirs.argmax(1)).mean())


def test_a_tagger_is_fine_tuned_on_tags(place: Path, tmp_path: Path) -> None:
    data = ("--data", place / "eng.train", "--eval-data", place / "eng.testa", "--task", "conll", "--device", "cpu")
    out = tmp_path / "tuned"
    trained("finetune", "--model", place / "start", *data, "--epochs", 1, "--out", out, "--max-length", 20)
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]


def test_what_does_not_fit_is_refused_in_a_line(
    place: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "c", "--device", "cpu")
    told = refused("build", "--teacher", place / "teacher", "--data", tsv_file, "--task", "sst2", *out)
    assert "answers for each word, and sst2 asks for each row" in told
    told = refused("build", "--teacher", tiny_teacher_dir, "--data", place / "eng.train", "--task", "conll", *out)
    assert "answers for each row, and conll asks for each word" in told
    told = refused("build", "--teacher", place / "teacher", "--data", tsv_file, "--text", "0", "--label", "1", *out)
    assert "is not one of O, B-PER" in told
    scored = train("evaluate", "--model", tiny_teacher_dir, "--data", place / "eng.testa", "--task", "conll")
    assert scored.exit_code == 2
    assert "answers for each row, and conll asks for each word" in scored.stderr
    assert not (tmp_path / "c").exists()
