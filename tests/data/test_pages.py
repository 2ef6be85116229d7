"""README and guide: every link leads to a file, and every command line is one that the commands understand."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from hskcache.cli import main as hskcache
from hskcache.encoded import ENCODED
from hskcache.spec import SCORES, LayerMapName, PairsName, ScoreLayer, WidthName
from hskcache.text import task_names
from trainer.cli import main as hsktrain
from trainer.recipe import known_recipes

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "data" / "guide").glob("*.md"))]
GROUPS = {"hskcache": hskcache, "hsktrain": hsktrain}
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^][]+\]\(([^()\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command_lines() -> Iterator[list[str]]:
    """Words of every command of ours in a code block, the name of the group first."""
    for page in PAGES:
        for block in BLOCK.findall(text(page)):
            for line in block.replace("\\\n", " ").splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars="|")
                lexer.whitespace_split = True
                words = list(lexer)
                for start, word in enumerate(words):
                    if word in GROUPS:
                        tail = words[start:]
                        yield tail[: tail.index("|")] if "|" in tail else tail


COMMAND_LINES = list(command_lines())


def command_of(words: list[str]) -> click.Command:
    group = GROUPS[words[0]]
    command = group.get_command(click.Context(group), words[1])
    assert command is not None, f"{words[0]} has no command {words[1]}"
    return command


def options_of(command: click.Command) -> set[str]:
    options = (one for one in command.params if isinstance(one, click.Option) and not one.hidden)
    return {flag for one in options for flag in (*one.opts, *one.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "tools").rglob("*.md"))], ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(ANY_BLOCK.sub("", text(page))) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("words", COMMAND_LINES, ids=lambda words: " ".join(words[:2]))
def test_a_command_line_has_options_and_values_that_exist(words: list[str]) -> None:
    """A line that ends in ``...`` leaves some out."""
    command = command_of(words)
    given = [word for word in words[2:] if word != "..."]
    assert {word for word in given if word.startswith("--")} <= options_of(command)
    context = click.Context(command, info_name=words[1])
    values, rest, _ = command.make_parser(context).parse_args(given)
    assert rest == []
    for parameter in command.params:
        value = values.get(parameter.name)
        # Numbers and words from a list are checked; files need not be there.
        if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType | click.Choice):
            parameter.type_cast_value(context, value)
        assert "..." in words or not parameter.required or value is not None, parameter.name


def test_there_are_command_lines_to_check() -> None:
    assert len(COMMAND_LINES) > 30


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_the_text_are_those_of_a_command(page: Path) -> None:
    everything = {
        group: {command: options_of(command_of([group, command])) for command in GROUPS[group].list_commands(None)}
        for group in GROUPS
    }
    common = {option for group in GROUPS.values() for option in options_of(group)}
    anywhere = common.union(*(options for commands in everything.values() for options in commands.values()))
    for span in SPAN.findall(ANY_BLOCK.sub("", text(page))):
        first, *others = span.split()
        others = [word for word in others if word not in common]
        if first in GROUPS and others:
            assert others[0] in everything[first], span
            assert set(OPTION.findall(" ".join(others))) <= everything[first][others[0]], span
        elif first.startswith("--"):
            assert set(OPTION.findall(span)) <= anywhere, span


def test_benchmarks_that_pages_name_exist() -> None:
    spans = [span for page in PAGES for span in SPAN.findall(ANY_BLOCK.sub("", text(page)))]
    named = {span.split()[1] for span in spans if span.startswith("tools/bench ")}
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "tools" / "benchmarks" / f"{name}.py").is_file()] == []


def test_rooms_and_files_that_developers_are_sent_to_exist() -> None:
    page = text(ROOT / "data" / "guide" / "developing.md")
    paths = {span for span in SPAN.findall(page) if re.fullmatch(r"(hskcache|trainer|tests|tools|data)/[\w./-]+", span)}
    assert len(paths) > 20
    assert [path for path in paths if "NAME" not in path and "TOPIC" not in path and not (ROOT / path).exists()] == []
    _, *floors = re.findall(r"^\| .*$", page.partition("## Floors")[2].partition("\n## ")[0], re.MULTILINE)
    rooms = {span for floor in floors for span in SPAN.findall(floor)}
    assert rooms >= {"spec", "store", "cli"}
    house = ROOT / "hskcache"
    assert [room for room in rooms if not (house / room).is_dir() and not (house / f"{room}.py").is_file()] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_command_and_option_is_somewhere_in_the_guide(group: str) -> None:
    written = "\n".join(map(text, PAGES))
    known = set(OPTION.findall(written))
    for command in GROUPS[group].list_commands(click.Context(GROUPS[group])):
        assert re.search(rf"\b{group} {command}\b|`{command}`", written), command
        for option in command_of([group, command]).params:
            if isinstance(option, click.Option) and not option.hidden:
                assert known & {*option.opts, *option.secondary_opts}, f"{command} {option.opts}"


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("data", task_names()),
        ("recipes", known_recipes()),
        ("encodings", ENCODED),
        ("corpora", get_args(PairsName)),
        ("keeping", [*SCORES, *get_args(ScoreLayer), *get_args(WidthName), *get_args(LayerMapName)]),
    ],
)
def test_a_page_has_every_name_that_may_be_given(topic: str, names: list[str]) -> None:
    spans = SPAN.findall(ANY_BLOCK.sub("", text(ROOT / "data" / "guide" / f"{topic}.md")))
    assert set(names) <= {word for span in spans for word in re.split(r"[\s|]", span)}
