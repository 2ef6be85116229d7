"""A command that writes a cache may be killed at any moment: nobody takes what it leaves for whole, and it goes on.

Here every kind of file and every kind of step is tried, of the first shard and of the last; tools/bench faults tries
all that there are.
"""

import re

import pytest
from material import Material
from scenarios import SCENARIOS, Scenario, Whole, recover, undisturbed
from steps import Moment, Step, moments

MOST = 10


@pytest.fixture(scope="module", params=SCENARIOS)
def run(
    request: pytest.FixtureRequest, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scenario, Whole]:
    scenario = SCENARIOS[request.param](material)
    return scenario, undisturbed(scenario, tmp_path_factory.mktemp("scenario"))


def kind(file: str) -> str:
    """What sort of file or folder a path is, whichever field and shard it is of and whether it has its name yet."""
    file = re.sub(r"/(inputs|logits|hidden|attention|more)(?=/|$)", "/FIELD", file).removesuffix(".*.tmp")
    return re.sub(r"\d{6}", "SHARD", re.sub(r"tokenizer/.*", "tokenizer/FILE", file))


def sample(found: list[Moment]) -> list[Moment]:
    """A moment of every kind of file, of its first or last shard, and of every kind of step; no more than a few."""
    kinds: dict[str, dict[tuple[str, bool], list[Moment]]] = {}
    for moment in found:
        verbs = kinds.setdefault(kind(moment.step.file), {})
        verbs.setdefault((moment.step.verb, moment.half), []).append(moment)
    chosen: dict[tuple[str, bool], Moment] = {}
    rest: list[Moment] = []
    for number, verbs in enumerate(kinds.values()):
        listed = list(verbs.items())
        verb, of_kind = listed[number % len(listed)]
        moment = of_kind[0 if number % 2 else -1]
        if verb in chosen:
            rest.append(moment)
        chosen.setdefault(verb, moment)
        for verb, of_kind in listed:
            chosen.setdefault(verb, of_kind[-1])
    return [*chosen.values(), *rest[: MOST - len(chosen)]]


def test_a_command_killed_at_a_step_of_any_kind_ends_with_the_same_bytes(
    run: tuple[Scenario, Whole],
) -> None:
    scenario, whole = run
    found = []
    for moment in sample(moments(whole.steps)):
        try:
            recover(scenario, whole, moment)
        except AssertionError as error:
            found.append(f"killed {moment}: {error}")
    assert found == []


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_end(
    run: tuple[Scenario, Whole],
) -> None:
    """A kill cannot tell this from its opposite, a power cut can."""
    steps = run[1].steps
    renames = [number for number, step in enumerate(steps) if step.verb == "rename"]
    assert renames
    for number in renames:
        before, names = steps[:number], origins(steps[: number + 1], steps[number])
        written = {step.file for step in before if step.verb == "write" and is_below(step.file, names)}
        for file in written:
            last = [step.verb for step in before if step.file == file and step.verb in {"write", "sync"}][-1]
            assert last == "sync", f"{file} when it becomes {steps[number].file}"
        folder = steps[number].file.rpartition("/")[0] or "."
        assert any((step.verb, step.file) == ("sync", folder) for step in steps[number:]), steps[number].file


def origins(steps: list[Step], rename: Step) -> list[str]:
    """The names that what is renamed has had."""
    names = [rename.source]
    for step in reversed(steps):
        if step.verb == "rename" and step.file == names[-1]:
            names.append(step.source)
    return names


def is_below(file: str, names: list[str]) -> bool:
    return any(file == name or file.startswith(f"{name}/") for name in names)
