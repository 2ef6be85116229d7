"""Audits of next tokens by teachers that compute in bfloat16, in batches of other shapes and by other products."""

from pathlib import Path

import pytest
import torch
from audited import report_of
from commanded import run
from language_models import language_model, language_tokenizer, llama
from models import saved

from hskcache.audit.audit import TOLERANCES, Question
from hskcache.cache import Cache, open_cache
from hskcache.teacher.load import load_language_model

FORMS = ("top:8", "sampled:20", "head:float32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("teacher") / "lm")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "t.txt"
    path.write_text("\n\n".join(f"film {n} is {'very ' * (n % 5)}dull" for n in range(16)), encoding="utf-8")
    return path


def built(teacher: Path, corpus: Path, out: Path, form: str, budget: int) -> Cache:
    rows = ("--corpus", corpus, "--max-length", 40, "--vocabulary", form, "--keep", "1l", "--student-layers", 2)
    given = ("--dtype", "bfloat16", "--token-budget", budget, "--device", "cpu", "--out", out)
    done = run("build", "--teacher", teacher, *rows, *given)
    assert done.exit_code == 0, done.output
    return open_cache(out)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("form", FORMS)
def test_batches_and_products_of_other_shapes_stay_within_the_bound(
    form: str, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    loaded = load_language_model(str(teacher), "cpu", "bfloat16")
    for budget in (40, 4096):
        cache = built(teacher, corpus, tmp_path / str(budget), form, budget)
        for is_native in (False, True):
            with torch.backends.mkldnn.flags(enabled=not is_native):
                report = report_of(loaded, cache, Question(num_rows=5))
            assert report.ok
            assert report.tolerance == TOLERANCES["bfloat16"]
            assert all(layer.excess is not None and layer.excess < 0.5 for layer in report.layers)


# Draws from distributions as flat as these are within their bound of many a teacher.
@pytest.mark.parametrize("form", ["top:8", "head:float32"])
def test_another_teacher_is_found_out(form: str, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    cache = built(teacher, corpus, tmp_path / "c", form, 4096)
    other = saved(lambda: llama(num_key_value_heads=4), language_tokenizer(), tmp_path / "other")
    report = report_of(load_language_model(str(other), "cpu", "bfloat16"), cache, Question(num_rows=5))
    (layer,) = (one for one in report.layers if one.kind == "vocabulary")
    assert layer.num_bad_rows == 5
