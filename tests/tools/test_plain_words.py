"""Docstrings begin with a verb or a noun phrase, and no two classes have one name."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("hskcache", "trainer") for path in (ROOT / package).rglob("*.py"))
# Clauses without their head, and phrases without the noun that they belong to.
HEADLESS = re.compile(
    r"(What|Whether|How|Where|Who|Whom|Whose|Why|When|Which|That|If|Is|Does|See that|Of|By|From)\b(?!:)"
)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and the strings below assignments, with their lines."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if not isinstance(node, documented):
            continue
        for before, statement in zip([None, *node.body], node.body, strict=False):
            text = statement.value if isinstance(statement, ast.Expr) else None
            is_documentation = before is None or isinstance(before, ast.Assign | ast.AnnAssign)
            if is_documentation and isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield statement.lineno, text.value


def test_no_docstring_opens_with_a_clause_or_phrase_that_lacks_its_head() -> None:
    """Whoever looks a name up reads a verb or a noun first: "Stored arrays", not "What is stored"."""
    found = [
        f"{path.relative_to(ROOT)}:{line} {text.splitlines()[0]}"
        for path in FILES
        for line, text in _docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if HEADLESS.match(text)
    ]
    assert not found, "\n".join(["begin with a verb or a noun phrase:", *found])


def test_no_class_name_stands_twice() -> None:
    """A name that is read in a signature or a traceback leads to one class."""
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not {name: where for name, where in places.items() if len(where) > 1}
