"""Help comes without torch, for every option; a missing extra is named, not shown as a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hskcache.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "pyarrow", "zarr")


def python(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *args], cwd=ROOT, capture_output=True, text=True)


def test_no_help_text_waits_for_torch() -> None:
    done = python(
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from hskcache.cli import COMMANDS, main\n"
        "for args in ([], *([name] for name in COMMANDS)):\n"
        "    result = CliRunner().invoke(main, [*args, '--help'], catch_exceptions=False)\n"
        "    assert result.exit_code == 0 and 'Usage' in result.output, (args, result.output)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    assert done.stdout.strip() == "[]", done.stderr


def imported_by(*command: str) -> tuple[set[str], set[str]]:
    """Packages of others that a command imports, and our own rooms and modules beside them."""
    done = python(
        "import sys, json\n"
        "before = set(sys.modules)\n"
        "from importlib import import_module\n"
        "main = import_module(sys.argv[1] + '.cli').main\n"
        "main(sys.argv[2:], standalone_mode=False)\n"
        "new = {name: getattr(module, '__file__', None) or '' for name, module in sys.modules.items()}\n"
        "found = {name for name, file in new.items() if name not in before and 'site-packages' in file}\n"
        "ours = {name for name in new if name.startswith(('hskcache.', 'trainer.'))}\n"
        "print(json.dumps([sorted(found), sorted(ours)]))\n",
        *command,
    )
    assert done.returncode == 0, done.stderr
    found, ours = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in found}, {name.split(".")[1] for name in ours}


@pytest.mark.parametrize("package", ["hskcache", "trainer"])
def test_the_list_of_commands_imports_click_alone(package: str) -> None:
    others, rooms = imported_by(package, "--help")
    assert others == {"click"}
    assert rooms == {"allocator", "cli", "console", "errors", "nearest", "processes", "threads", "units"}


@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/manifest.json")))
def test_info_imports_what_reads_a_manifest(name: str) -> None:
    others, rooms = imported_by("hskcache", "info", str(GOLDEN / name))
    models = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
    assert others <= models | {"click"}
    absent = {"build", "encoding", "model", "move", "text", "views"}
    assert all((ROOT / "hskcache" / room).is_dir() for room in absent)
    assert not rooms & absent


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


@pytest.mark.parametrize("command", [("build", "--out", "c"), ("estimate",)])
@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_extra_is_named(command: tuple[str, ...], package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; from hskcache.cli import main; main()"
    done = python(script, *command, "--teacher", "t", "--data", "d.tsv", "--task", "sst2")
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()
    assert line == f"error: {package} is not installed; install the extra: pip install 'hskcache[teacher]'"


def test_looking_at_a_cache_needs_no_torch() -> None:
    """On the golden cache, with torch and transformers out of reach."""
    for command in (["info"], ["info", "--spec"], ["view", "1"], ["verify"]):
        args = [command[0], str(ROOT / "tests" / "golden" / "tiny.hsk"), *command[1:]]
        blocked = "sys.modules['torch'] = sys.modules['transformers'] = None"
        done = python(f"import sys; {blocked}; from hskcache.cli import main; main()", *args)
        assert done.returncode == 0, done.stderr
