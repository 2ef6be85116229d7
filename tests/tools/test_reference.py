"""The reference of the Python face: whatever is public has a section with its words, and every link leads somewhere.

It is made in a process of its own that fails at any warning and at any socket.
"""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRITE = """
import json, socket, sys
def refuse(*args, **options):
    raise AssertionError("the reference asks for a network")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from reference import PUBLIC, write
write(Path(sys.argv[1]))
print(json.dumps(PUBLIC))
"""


class Page(HTMLParser):
    """Anchors of a page, its links, what it loads, and the text of the docstring of each anchor."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: dict[str, str] = {}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.docstrings: dict[str, str] = defaultdict(str)
        self._stack: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[name] for name in ("src", "href") if tag in {"script", "link", "img"} and name in given]
        if "id" in given:
            self.anchors[given["id"]] = tag
        if tag in {"section", "div", "main"}:
            self._stack.append((given.get("id", ""), given.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"section", "div", "main"} and self._stack:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if any(kind == "docstring" for _, kind in self._stack):
            anchor = next((anchor for anchor, _ in reversed(self._stack) if anchor), "")
            self.docstrings[anchor] += data


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-W", "error", "-c", WRITE, str(folder)]
    done = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "public.json").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pages(reference: Path) -> Mapping[str, Page]:
    """Pages by their path within the folder."""
    return {str(path.relative_to(reference)): Page(path) for path in reference.rglob("*.html")}


@pytest.fixture(scope="module")
def public(reference: Path) -> dict[str, tuple[str, ...]]:
    """Public names by module."""
    found: dict[str, tuple[str, ...]] = json.loads((reference / "public.json").read_text(encoding="utf-8"))
    return found


def page_of(module: str) -> str:
    return f"{module.replace('.', '/')}.html"


def test_every_public_name_has_a_section_with_its_docstring(
    pages: Mapping[str, Page], public: Mapping[str, tuple[str, ...]]
) -> None:
    assert len(public) > 10
    for module, names in public.items():
        page = pages[page_of(module)]
        assert page.docstrings[""].strip(), module
        for name in names:
            assert page.anchors.get(name) == "section", f"{module}.{name}"
            assert page.docstrings[name].strip(), f"{module}.{name}"


def test_every_member_of_a_class_has_words_of_its_own(pages: Mapping[str, Page]) -> None:
    """All but constructors, whose arguments are the attributes; what a class says of an attribute stands there."""
    members = [(path, anchor) for path, page in pages.items() for anchor, tag in page.anchors.items() if tag == "div"]
    named = [(path, anchor) for path, anchor in members if "." in anchor and not anchor.endswith(".__init__")]
    assert len(named) > 150
    assert [one for one in named if not pages[one[0]].docstrings[one[1]].strip()] == []
    assert "in device memory" in pages["trainer/loading.html"].docstrings["KnowledgeLoader.residency"]
    # Inherited, and said of the base.
    assert "forward pass" in pages["trainer/loading.html"].docstrings["KnowledgeLoader.batch_size"]
    assert "DataFrame" in pages["hskcache.html"].docstrings["Cache.to_pandas"]


def test_every_link_leads_to_an_anchor_of_a_page(pages: Mapping[str, Page], reference: Path) -> None:
    lost = []
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            found = str((reference / path).parent.joinpath(target).resolve().relative_to(reference)) if target else path
            # The one who made the pages' layout is named on each.
            if link != "https://pdoc.dev" and (found not in pages or (anchor and anchor not in pages[found].anchors)):
                lost.append((path, link))
    assert lost == []
    assert "hskcache/cache.html#Manifest" in pages["hskcache.html"].links, "a role by the file that it is written in"


def test_pages_load_nothing_from_elsewhere(pages: Mapping[str, Page]) -> None:
    for path, page in pages.items():
        assert [one for one in page.loaded if not one.startswith("data:")] == [], path


def test_no_markup_and_no_address_is_left_over(reference: Path) -> None:
    for path in reference.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r":(class|func|meth|attr|data|mod):`|``|Annotated\[| at 0x|Attributes:", text), path
        assert str(ROOT) not in text


def test_whatever_the_guide_imports_is_public(public: Mapping[str, tuple[str, ...]]) -> None:
    block = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    sources = [ROOT / "README.md", *(ROOT / "data" / "guide").glob("*.md")]
    code = [found for path in sources for found in block.findall(path.read_text(encoding="utf-8"))]
    imported = {
        (node.module, name.name)
        for node in ast.walk(ast.parse("\n".join(code)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("hskcache", "trainer"))
        for name in node.names
    }
    assert len(imported) > 8
    assert [(module, name) for module, name in imported if name not in public.get(module or "", ())] == []
