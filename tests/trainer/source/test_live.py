"""A cache teaches what the teacher itself would."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WIDTHS, job_of, spec_of, student_of

from hskcache.build.build import Job
from hskcache.cache import Cache
from hskcache.text.layout import Layout
from trainer.batch import Batch
from trainer.loading import KnowledgeLoader
from trainer.loading.ordered import Ordered
from trainer.recipe import HiddenTerm, LabelTerm, Losses, SoftTerm
from trainer.source.live import LiveLoader, live_knowledge, live_source
from trainer.source.objective import Objective
from trainer.source.source import Slice, Source, cached_source

NUM_STEPS = 50


@pytest.fixture(scope="session")
def jobs(tiny_teacher_dir: Path, tsv_file: Path) -> Callable[[str], Job]:
    return cache(lambda width: job_of(tiny_teacher_dir, tsv_file, spec_of(width)))


def losses_of(loader: Ordered[Any, Batch], objective: Objective) -> list[torch.Tensor]:
    """Train and note every step's terms."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    steps: list[torch.Tensor] = []
    while len(steps) < NUM_STEPS:
        for batch in loader:
            loss, terms = objective(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.append(torch.stack([loss.detach(), *terms.values()]))
    return steps[:NUM_STEPS]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("missing", "student"), [("zero", "narrow"), ("ignore", "wide")])
def test_losses_equal_those_with_the_teacher_in_the_loop_step_by_step(
    width: str,
    missing: Any,
    student: str,
    caches: Callable[[str], Cache],
    jobs: Callable[[str], Job],
    request: pytest.FixtureRequest,
) -> None:
    job = jobs(width)
    losses = Losses(hidden=HiddenTerm(missing=missing), soft=SoftTerm(temperature=2.0), label=LabelTerm())
    source = cached_source(caches(width).root)
    config: Path = request.getfixturevalue(student)
    cached, live = (
        losses_of(loader, Objective(student_of(source, config), losses, source.knowledge.matches))
        for loader in (KnowledgeLoader(caches(width), batch_size=12), LiveLoader(job, batch_size=12))
    )
    # Batches are padded otherwise, and forty steps of the optimiser make the last bits grow.
    torch.testing.assert_close(torch.stack(cached), torch.stack(live), rtol=5e-5, atol=0)
    assert cached[-1][0] < cached[0][0]


def test_both_go_through_the_rows_in_the_same_order_with_the_same_inputs(
    caches: Callable[[str], Cache], jobs: Callable[[str], Job]
) -> None:
    settings: dict[str, Any] = {"batch_size": 5, "seed": 4, "rank": 1, "world_size": 2}
    cached, live = KnowledgeLoader(caches("bitmask"), **settings), LiveLoader(jobs("bitmask"), **settings)
    for ours, theirs in zip([*cached, *cached], [*live, *live], strict=True):
        assert ours.row_ids == theirs.row_ids
        assert (ours.num_rows, ours.num_positions) == (theirs.num_rows, theirs.num_positions)
        assert ours.inputs.keys() == theirs.inputs.keys()
        assert all(torch.equal(tensor, theirs.inputs[name]) for name, tensor in ours.inputs.items())
        assert ours.labels is not None
        assert theirs.labels is not None
        assert torch.equal(ours.labels, theirs.labels)
        for layer, target in ours.hidden.items():
            assert torch.equal(target.index_P, theirs.hidden[layer].index_P)


def test_what_there_is_to_learn_is_described_alike(caches: Callable[[str], Cache], jobs: Callable[[str], Job]) -> None:
    ours, theirs = cached_source(caches("pca").root).knowledge, live_knowledge(jobs("pca"))
    assert ours.request.digest == theirs.request.digest
    assert (ours.fields, ours.has_labels) == (theirs.fields, theirs.has_labels)
    assert ours.matches == theirs.matches
    assert ours.interface() == theirs.interface()


@pytest.mark.parametrize(
    ("losses", "has_logits", "layers"),
    [
        (Losses(label=LabelTerm()), False, []),
        (Losses(soft=SoftTerm()), True, []),
        (Losses(hidden=HiddenTerm()), False, [2, 4]),
    ],
)
def test_the_teacher_computes_what_a_stage_learns_from_and_no_more(
    losses: Losses, has_logits: bool, layers: list[int], tiny_teacher_dir: Path, tsv_file: Path
) -> None:
    layout = Layout("sst2", None, None, None, None)
    source: Source = live_source(str(tiny_teacher_dir), str(tsv_file), layout, spec_of(), "cpu")
    batch = next(iter(source.loader(losses, Slice(8, 0, 1, 1, "cpu"), 0)))
    assert (batch.logits is not None) == has_logits
    assert list(batch.hidden) == layers
    assert batch.labels is not None


def test_a_live_loader_goes_on_from_any_place(jobs: Callable[[str], Job]) -> None:
    whole = list(LiveLoader(jobs("bitmask"), batch_size=20))
    resumed = LiveLoader(jobs("bitmask"), batch_size=20)
    saved = LiveLoader(jobs("bitmask"), batch_size=20)
    saved.seek(0, 3)
    resumed.load_state_dict(saved.state_dict())
    assert [batch.row_ids for batch in resumed] == [batch.row_ids for batch in whole[3:]]
