"""A loaded teacher, its eager twin, and rows that are quick to run, for all rooms that run a teacher.

Heavy imports stay inside the fixtures, so that tests of rooms without torch run without torch.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commanded import KEEP as BUILD
from commanded import SMALL, run
from folders import KEEP
from rows_like import with_content

from hskcache.cache import Cache, open_cache
from hskcache.spec import Depth, Hidden, Length, Spec, Width, parse_keep
from hskcache.text import Examples, examples_for, load_task, tokenize
from hskcache.verify import verify

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher

NUM_ROWS = 40


@pytest.fixture(scope="session")
def teacher(tiny_teacher_dir: Path) -> "Teacher":
    import torch

    from hskcache.teacher.load import load_teacher

    # Tiny tensors gain nothing from threads, and children are forked here.
    torch.set_num_threads(1)
    return load_teacher(str(tiny_teacher_dir), "cpu")


@pytest.fixture(scope="session")
def eager(tiny_teacher_dir: Path) -> "PreTrainedModel":
    """The same weights with transformers' own eager attention."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def examples(tsv_file: Path) -> Examples:
    """40 labelled sentences."""
    everything = examples_for(tsv_file, load_task("sst2"))
    assert everything.labels is not None
    return with_content(everything, texts=everything.texts[:NUM_ROWS], labels=everything.labels[:NUM_ROWS])


@pytest.fixture(scope="session")
def pairs(examples: Examples) -> Examples:
    """40 labelled pairs of sentences of different lengths."""
    return with_content(examples, pairs=examples.texts[::-1])


@pytest.fixture(scope="session")
def unlabelled(examples: Examples) -> Examples:
    return with_content(examples, labels=None)


@pytest.fixture(scope="session")
def scored(examples: Examples) -> Examples:
    """40 sentences with a score instead of a class."""
    scores = np.linspace(-1, 5, NUM_ROWS, dtype=np.float32)
    return with_content(examples, labels=scores, label_names=(), problem="regression")


def make_spec(keep: str, **given: Any) -> Spec:
    """A spec of the short form; ``length__score="left"`` goes to the part of hidden, the rest to the whole."""
    kept = parse_keep(keep)
    top = {key: given.pop(key) for key in list(given) if key in Spec.model_fields}
    # Small shards and batches: ten of the first, several of the second in each.
    top = {"shard_rows": 4, "token_budget": 40, "max_length": 48} | top
    if kept is None:
        return Spec(hidden=None, **top)
    parts: dict[str, dict[str, Any]] = {
        "depth": {"student_layers": 2, "num_layers": kept.layers},
        "length": {"tokens": kept.tokens},
        "width": {"fraction": kept.fraction},
    }
    encoding = given.pop("encoding", "float32")
    for key, value in given.items():
        part, _, name = key.partition("__")
        parts[part][name] = value
    depth, length, width = Depth(**parts["depth"]), Length(**parts["length"]), Width(**parts["width"])
    return Spec(hidden=Hidden(depth=depth, length=length, width=width, encoding=encoding), **top)


@pytest.fixture(scope="session")
def spec_of() -> Callable[..., Spec]:
    return make_spec


@pytest.fixture(scope="session")
def job_of(teacher: "Teacher", examples: Examples) -> "Callable[..., Job]":
    """A job of a short form: ``job_of("1l_4t_0.25h", encoding="int8", length__score="left")``."""

    from hskcache.build.job import prepare_job

    def make(keep: str, rows: Examples = examples, by: "Teacher" = teacher, **given: Any) -> "Job":
        spec = make_spec(keep, **given)
        return prepare_job(by, rows, tokenize(rows, by.tokenizer, spec.max_length), spec)

    return make


@pytest.fixture(scope="session")
def job(job_of: Any) -> "Job":
    return job_of(**KEEP)


@pytest.fixture(scope="session")
def whole(job: "Job", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a build that nothing disturbed."""
    from hskcache.build.build import build

    out = tmp_path_factory.mktemp("whole") / "c"
    build(job, out)
    assert verify(out).ok
    return out


@pytest.fixture(scope="session")
def sources(tiny_teacher_dir: Path, tsv_file: Path) -> tuple[object, ...]:
    return ("--teacher", tiny_teacher_dir, "--data", tsv_file, "--device", "cpu")


@pytest.fixture(scope="session")
def built(sources: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 rows in 5 shards, with components that are fitted to a sample."""
    out = tmp_path_factory.mktemp("built") / "c"
    assert run("build", *sources, "--task", "sst2", *BUILD, *SMALL, "--out", out).exit_code == 0
    return out


@pytest.fixture(scope="session")
def more(examples: Examples) -> Examples:
    """13 rows, of which a shard of 5 has 3 left."""
    assert examples.labels is not None
    texts = [f"{text} and short" for text in examples.texts[:13]]
    return with_content(examples, texts=texts, labels=examples.labels[:13], source="more.tsv")


@pytest.fixture(scope="session")
def new(job_of: Any, more: Examples) -> "Job":
    """A job over them, to be appended to the cache ``whole``."""
    return job_of(rows=more, **KEEP)


@pytest.fixture(scope="session")
def grown(whole: Path, new: "Job", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache with the rows appended, which nothing disturbed."""
    from hskcache.build.append import append

    root = Path(shutil.copytree(whole, tmp_path_factory.mktemp("grown") / "c"))
    append(new, open_cache(root))
    return root


@pytest.fixture(scope="session")
def other_dir(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the same shape with other weights."""
    from models import reweighted

    return reweighted(tiny_teacher_dir, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="session")
def other(other_dir: Path) -> "Teacher":
    """The same, loaded."""
    from hskcache.teacher.load import load_teacher

    return load_teacher(str(other_dir), "cpu")


@pytest.fixture
def cache(job_of: Any, tmp_path: Path) -> Cache:
    """The logits of the tiny teacher, to which other fields may be added."""
    from hskcache.build.build import build

    build(job_of("none"), tmp_path / "c")
    return open_cache(tmp_path / "c")
