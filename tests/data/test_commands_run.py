"""The commands of README and guide run as they are printed, page by page, on tiny models and rows.

A page's commands run one after the other in this process, in a folder that holds what they name and do not make
themselves. Places that a test has not got are replaced (``PLACES``), and what cannot run is listed with its reason
(``NOT_RUN``); both lists hold nothing that no page prints any more.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prepared import GROUPS, ROOT, Shelf, invoke

import hskcache

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "data" / "guide").glob("*.md"))]

PLACES = {
    "hub:nyu-mll/glue:sst2:train": "train.tsv",
    "hub:nyu-mll/glue:sst2:validation": "dev.tsv",
    "s3://team": "file://{folder}/team",
    "s3://bucket": "file://{folder}/bucket",
    "hf://NAME/REPO": "file://{folder}/hub/student",
    "sentence-transformers/all-MiniLM-L6-v2": "embedder",
    "--layers 2,4,6": "--layers 1,2",
    "--device cuda": "--device cpu",
}
"""What stands in for places and devices that need a network or a GPU; ``{folder}`` is where the page runs."""

NOT_RUN = {
    "tools/demo": "minutes of training, and it runs these commands itself",
    "tools/check": "runs this test",
    "pip install": "changes the environment",
    "torchrun": "several processes, which tests of their own start",
    "accelerate launch": "several processes",
    "srun": "a cluster",
    "head=": "a cluster",
    "$SCRATCH": "a cluster",
    "| ssh host": "another machine",
    "--recipe logits ...": "left open for the reader",
    "hsktrain study": "a grid of trainings over seeds",
    "--study study": "what such a grid leaves",
}
"""Parts of lines that are not run, each with the reason."""

QUICK = {
    "hsktrain profile": "--repetitions 1",
    "hsktrain finetune": "--epochs 1",
    "hsktrain compare": "--set hidden.epochs=1 --set prediction.epochs=1",
    "hsktrain stark": "--sparsity 0,30 --set distillation.epochs=1",
}
"""Options behind what is printed, for commands that take their time on any model."""

# Of the teacher that a page cuts smaller.
WIDE = {"pruning": {"hidden_size": 128, "intermediate_size": 768}}

FAILING = {"hskcache diff sst2.hsk other.hsk": 1}
"""Lines that tell by their exit code what they have found."""


def lines_of(page: Path) -> Iterator[str]:
    """Command lines of a page, without comments, in one line each."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield re.sub(r"\s+", " ", line) if "|" in line or "$" in line else shlex.join(words)


def is_run(line: str) -> bool:
    return not any(part in line for part in NOT_RUN)


RUN = {page: lines for page in PAGES if (lines := list(filter(is_run, lines_of(page))))}


@pytest.fixture(scope="module")
def shelves(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path, glue: Path
) -> Callable[[str, str], Shelf]:
    @cache
    def make(task: str, page: str) -> Shelf:
        return Shelf(tmp_path_factory.mktemp(task), tiny_tokenizer_dir, glue, task, WIDE.get(page, {}))

    return make


def name(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_commands_of_a_page_run_as_printed(
    page: Path, shelves: Callable[[str, str], Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))
    task = "rte" if any("--task rte" in line or "rte.hsk" in line for line in RUN[page]) else "sst2"
    shelf = shelves(task, page.stem if page.stem in WIDE else "")
    laid: set[str] = set()
    for line in RUN[page]:
        words = shlex.split(placed(line, tmp_path))
        assert words[0] in GROUPS, f"{line}: not one of our commands; it belongs to NOT_RUN with its reason"
        out = words[words.index("--out") + 1] if "--out" in words and "--add-field" not in words else ""
        if out in laid:
            shutil.rmtree(tmp_path / out)
        for word in words[1:]:
            if shelf.knows(word) and word != out and not Path(word).exists():
                shelf.put(word, tmp_path)
                laid.add(word)
        done = invoke(words)
        assert done.exit_code == FAILING.get(line, 0), f"{line}\n{done.output}\n{done.exception!r}"


def placed(line: str, folder: Path) -> str:
    for place, other in PLACES.items():
        line = line.replace(place, other.format(folder=folder))
    return f"{line} {' '.join(more for command, more in QUICK.items() if line.startswith(command))}"


def test_the_lists_hold_nothing_that_no_page_prints() -> None:
    everything = [line for page in PAGES for line in lines_of(page)]
    assert len(everything) > 70
    for part in (*PLACES, *NOT_RUN, *QUICK, *FAILING):
        assert any(part in line for line in everything), part
    assert sum(map(len, RUN.values())) > 55


SNIPPETS = """
import json
import h5py, numpy as np, torch, xarray, zarr
from pathlib import Path
from transformers import AutoModelForSequenceClassification

student = AutoModelForSequenceClassification.from_pretrained("student")
optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
projection = torch.nn.Linear(student.config.hidden_size, 32)
record = {"file": next(Path("sst2.hsk/logits").glob("*.zip")).name}
"""
"""What snippets of README and guide take for granted."""


SNIPPET_PAGES = ["README.md", *(f"data/guide/{page}.md" for page in ("first-hour", "format", "hdf5"))]


@pytest.mark.parametrize("page", SNIPPET_PAGES)
def test_python_snippets_run_as_printed(
    page: str, shelves: Callable[[str, str], Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the page on Python have a test of their own."""
    monkeypatch.chdir(tmp_path)
    for wanted in ("sst2.hsk", "student"):
        shelves("sst2", "").put(wanted, tmp_path)
    for target in (["sst2.h5"], ["sst2.zarr", "--zarr"]):
        assert invoke(["hskcache", "export", "sst2.hsk", *target]).exit_code == 0
    names: dict[str, Any] = {}
    exec(SNIPPETS, names)
    blocks = PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        assert float(names["loss"].detach()) > 0
    if page.endswith("hdf5.md"):
        hidden = hskcache.open_cache("sst2.hsk").fields["hidden"]
        assert names["states"].shape[-1] == hidden.num_columns


def test_every_page_with_snippets_has_them_run() -> None:
    found = {str(page.relative_to(ROOT)) for page in PAGES if PYTHON.search(page.read_text(encoding="utf-8"))}
    assert found == {*SNIPPET_PAGES, "data/guide/python.md"}
