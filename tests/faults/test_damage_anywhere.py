"""Whatever part of whatever file is changed, verify names it and training never sees it.

Here a sample of a few positions of every region of every kind of file; tools/bench damage tries thousands.
"""

import shutil
from pathlib import Path

import pytest
from damages import Cut, Damage, Suite, regions, restore
from judged import batches, is_detected, trained_on
from material import SPEC, Material

from hskcache.spec import Width


@pytest.fixture(scope="module")
def suite(material: Material, built: Path) -> Suite:
    assert SPEC.hidden is not None
    older = SPEC.hidden.model_copy(update={"width": Width(scheme="random", fraction=0.25, seed=1)})
    older_dir = material.built("older", SPEC.model_copy(update={"hidden": older}))
    return Suite(built, older_dir, small=Cut(4, 2), shard=Cut(1, 1))


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


def undetected(suite: Suite, root: Path, damages: list[Damage]) -> list[str]:
    found = []
    for damage in damages:
        damage.apply(root)
        if not is_detected(root, damage):
            found.append(f"{damage.kind}: {damage.what}")
        restore(root, suite.root, damage)
    return found


def test_verify_names_every_damage_by_file_and_field_and_shard(suite: Suite, copied: Path) -> None:
    damages = list(suite.damages())
    assert len(damages) > 750
    damages = damages[::3]
    assert undetected(suite, copied, damages) == []


def test_training_refuses_every_damage_to_what_it_reads_before_a_row_of_it_is_handed_out(
    suite: Suite, copied: Path
) -> None:
    whole, found = list(batches(suite.root)), []
    assert len(set(whole)) == len(whole) > 4
    for number, damage in enumerate(suite.damages()):
        if number % 4:
            continue
        damage.apply(copied)
        verdict = trained_on(copied, whole, "host" if number % 8 else "stream")
        # What training reads it refuses; of two manifests it reads the one that is whole.
        heals = damage.region.startswith("manifest") and damage.kind != "stale"
        due = {"refused"} if damage.read else {"the same batches"} if heals else {"refused", "the same batches"}
        if verdict not in due:
            found.append(f"{damage.kind}: {damage.what}: {verdict}")
        restore(copied, suite.root, damage)
    assert found == []


def test_the_suite_reaches_every_file_and_every_byte(suite: Suite) -> None:
    """Regions follow each other without gaps, and every file is damaged in every way."""
    for file in suite.files:
        data = (suite.root / file).read_bytes()
        spans = [span for _, span in regions(file, data)]
        assert [position for span in spans for position in span] == list(range(len(data))), file
    damages = list(suite.damages())
    kinds = {damage.kind for damage in damages}
    by_file = {file: {damage.kind for damage in damages if file in damage.touched} for file in suite.files}
    assert {file for damage in damages if damage.read for file in damage.touched} >= {
        file for file in suite.files if not file.startswith("tokenizer/")
    }
    everywhere = kinds - {"swapped", "stale", "extra file", "a link to an equal folder"}
    assert all(everywhere <= found for found in by_file.values())
