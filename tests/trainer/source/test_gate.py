"""What does not fit is said in one line before anything is trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import cache_of, config_file, job_of, recipe_of, spec_of, student_of, without_labels

from hskcache.cache import Cache
from hskcache.errors import MismatchError, SpecError
from hskcache.selection.depth import LayerPair
from trainer.recipe import Recipe
from trainer.source.gate import check_recipe, check_student, check_tokenizer
from trainer.source.knowledge import Knowledge, cached_knowledge
from trainer.source.source import cached_source


def stage(**losses: Any) -> Recipe:
    return recipe_of(learn={"losses": losses, "epochs": 1})


@pytest.fixture
def knowledge(caches: Callable[[str], Cache]) -> Knowledge:
    return cached_knowledge(caches("bitmask"))


def refusal(call: Callable[[], None], error: type[Exception] = MismatchError) -> str:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_fits_passes(knowledge: Knowledge, cache_dir: Path, wide: Path) -> None:
    recipe = stage(hidden={}, soft={}, label={})
    check_recipe(knowledge, recipe, slices=4)
    check_student(knowledge, recipe, student_of(cached_source(cache_dir), wide))
    assert knowledge.matches.pairs == {"hidden": (LayerPair(1, 2), LayerPair(2, 4))}
    assert knowledge.label_names == ("0", "1")


def test_a_cache_without_hidden_states_cannot_teach_them(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    knowledge = cached_knowledge(cache_of(job_of(tiny_teacher_dir, tsv_file, spec_of(hidden=None)), tmp_path / "c"))
    check_recipe(knowledge, stage(soft={}, label={}))
    message = refusal(lambda: check_recipe(knowledge, stage(hidden={}, soft={})))
    assert "stage 'learn' of recipe 'tiny' learns from hidden states" in message
    assert f"the cache {tmp_path / 'c'} keeps none" in message
    assert "--keep" in message


def test_a_cache_without_labels_cannot_teach_them(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    job = without_labels(job_of(tiny_teacher_dir, tsv_file, spec_of()))
    knowledge = cached_knowledge(cache_of(job, tmp_path / "c"))
    check_recipe(knowledge, stage(hidden={}, soft={}))
    message = refusal(lambda: check_recipe(knowledge, stage(label={})))
    assert "learns from labels" in message
    assert "--label" in message


def test_logits_that_nobody_kept_cannot_be_learned(knowledge: Knowledge) -> None:
    assert "learns from logits" in refusal(lambda: check_recipe(replace(knowledge, fields={}), stage(soft={})))


def test_a_batch_that_cannot_be_cut_is_refused(knowledge: Knowledge) -> None:
    message = refusal(lambda: check_recipe(knowledge, stage(soft={}), slices=3), SpecError)
    assert "batches of 16 rows, which cannot be cut into 3 equal parts" in message
    assert "--set learn.batch_size=N with N a multiple of 3" in message


STUDENTS = {
    "layers": ({"num_hidden_layers": 3}, stage(hidden={}), "has 3 layers .* to a student of 2; .* --student-layers 3"),
    "positions": ({"max_position_embeddings": 16}, stage(soft={}), "has 16 positions .* 24 tokens; .* --max-length 16"),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_that_does_not_fit_is_refused(
    name: str, knowledge: Knowledge, cache_dir: Path, tmp_path: Path
) -> None:
    changes, recipe, complaint = STUDENTS[name]
    student = student_of(cached_source(cache_dir), config_file(tmp_path, **changes))
    with pytest.raises(MismatchError, match=complaint):
        check_student(knowledge, recipe, student)


def test_layers_matter_only_to_hidden_states(knowledge: Knowledge, cache_dir: Path, tmp_path: Path) -> None:
    student = student_of(cached_source(cache_dir), config_file(tmp_path, num_hidden_layers=3))
    check_student(knowledge, stage(soft={}, label={}), student)


@pytest.mark.parametrize(
    ("entry", "value", "complaint"),
    [
        ("num_labels", 3, "has 3 outputs and the cache .* has 2"),
        ("num_labels", 1, "has 1 output and the cache .* has 2 \\(1 is a score\\)"),
        ("vocab_size", 60, "knows 60 token ids .* gives .*; use a student with the teacher's vocabulary"),
    ],
)
def test_a_student_of_another_task_or_vocabulary_is_refused(
    entry: str, value: int, complaint: str, knowledge: Knowledge, cache_dir: Path, wide: Path
) -> None:
    student = student_of(cached_source(cache_dir), wide)
    setattr(student.config, entry, value)
    with pytest.raises(MismatchError, match=complaint):
        check_student(knowledge, stage(soft={}), student)


def test_rows_padded_with_a_token_that_the_student_does_not_know_are_refused(
    knowledge: Knowledge, cache_dir: Path, wide: Path
) -> None:
    request = knowledge.request
    tokenizer = request.tokenizer.model_copy(update={"pad_token_id": 1 << 16})
    padded = replace(knowledge, request=request.model_copy(update={"tokenizer": tokenizer}))
    with pytest.raises(MismatchError, match="are padded with 65536"):
        check_student(padded, stage(soft={}), student_of(cached_source(cache_dir), wide))


def test_another_tokenizer_is_refused_by_the_first_token_that_differs(knowledge: Knowledge) -> None:
    ours = {"[PAD]": 0, "the": 1, "film": 2}
    check_tokenizer(knowledge, dict(ours), ours, "student")
    message = refusal(lambda: check_tokenizer(knowledge, ours | {"the": 2, "film": 1}, ours, "student"))
    assert "token 'film' has id 1 there and 2 here" in message
    message = refusal(lambda: check_tokenizer(knowledge, ours | {"zoo": 3}, ours, "student"))
    assert "token 'zoo' has id 3 there and None here" in message


def test_rows_without_class_names_number_them(knowledge: Knowledge) -> None:
    request = knowledge.request
    nameless = replace(
        knowledge, request=request.model_copy(update={"data": request.data.model_copy(update={"label_names": []})})
    )
    assert nameless.label_names == ("0", "1")
    assert nameless.interface().num_labels == 2
