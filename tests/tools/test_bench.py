"""``tools/bench`` lists every benchmark, helps with each without torch, and suggests a name for one that is none."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = (sys.executable, str(ROOT / "tools" / "bench"))

# All in one process: what benchmarks share is imported once.
ALL_HELP = """
import json, sys
import click
from click.testing import CliRunner
from benchmarks.harness.launcher import NAMES, main
found = {name: CliRunner().invoke(main, [name, "--help"], prog_name="tools/bench") for name in NAMES}
for name in NAMES:
    command = main.get_command(None, name)
    for option in command.params:
        if isinstance(option.type, click.Choice) and isinstance(option.default, str):
            assert option.default in option.type.choices, (name, option.name)
print(json.dumps({name: (result.exit_code, result.output) for name, result in found.items()}))
assert "torch" not in sys.modules
"""


def benchmarks() -> set[str]:
    return {path.stem for path in (ROOT / "tools" / "benchmarks").glob("*.py")} - {"__init__"}


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *words], capture_output=True, text=True, check=False)


def test_every_benchmark_is_listed_with_what_it_is_for() -> None:
    listed = bench()
    assert listed.returncode == 0
    _, _, table = listed.stdout.partition("Benchmarks:\n")
    entries = dict(line.split(None, 1) for line in table.splitlines() if line.startswith("  ") and line[2] != " ")
    assert entries.keys() == benchmarks()
    assert entries["startup"].startswith("Seconds until a command has answered")


def test_every_benchmark_helps_without_torch_and_admits_its_own_defaults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], cwd=ROOT / "tools", capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found.keys() == benchmarks()
    for name, (code, text) in found.items():
        assert code == 0, text
        assert text.startswith(f"Usage: tools/bench {name} [OPTIONS]")
        assert "--json" in text


def test_a_name_that_is_none_is_told_the_nearest() -> None:
    done = bench("quallity")
    assert done.returncode == 2
    assert "quallity" in done.stderr
    assert "do you mean 'quality'?" in done.stderr
    assert done.stdout == ""


def test_startup_times_each_command_in_two_checkouts() -> None:
    done = bench("startup", "--against", str(ROOT), "--repetitions", "1", "--json")
    # 1: slower than its targets, as on a busy machine.
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)["commands"]
    assert list(found) == ["hskcache --help", "hsktrain --help", "hskcache info", "hsktrain fit, finished"]
    assert all(set(times["seconds"]) == {"here", "against"} for times in found.values())


def test_startup_refuses_what_is_no_commit() -> None:
    done = bench("startup", "--against", "no-such-commit", "--repetitions", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --against 'no-such-commit' is no checkout and no commit")
