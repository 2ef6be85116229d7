"""The reference of the Python face: a page of HTML for every module of ``PUBLIC``, made of docstrings alone.

``tools/reference FOLDER`` writes it. Nothing is fetched, neither now nor by who reads the pages.
"""

import inspect
import pkgutil
import re
import sys
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
import jinja2
from pdoc import doc, render
from pdoc.render_helpers import relative_link

PUBLIC = {
    "hskcache": ("build", "add_field", "open_cache", "Cache"),
    "hskcache.views": ("View", "parse_view"),
    "hskcache.spec": ("Spec", "Hidden", "Attention", "Depth", "Length", "Width", "Packing", "Keep", "parse_keep"),
    "hskcache.text.layout": ("Layout",),
    "hskcache.build.request": ("BuildRequest", "AdditionRequest", "Texts", "alone"),
    "hskcache.build.requested": ("build", "add_field", "BuildOutcome"),
    "hskcache.cache": ("Manifest", "Request", "InputsField", "LogitsField", "HiddenField", "AttentionField"),
    "hskcache.verify": ("verify", "Report", "Problem"),
    "hskcache.errors": (
        "CacheError",
        "SpecError",
        "DataError",
        "ColumnError",
        "TeacherError",
        "MismatchError",
        "DamageError",
        "Interrupted",
    ),
    "trainer": ("fit", "finetune", "FitRequest", "FinetuneRequest", "FromCache", "FromTeacher", "Machine"),
    "trainer.recipe": (
        "load_recipe",
        "known_recipes",
        "Recipe",
        "Stage",
        "Losses",
        "HiddenTerm",
        "EmbeddingTerm",
        "AttentionTerm",
        "SoftTerm",
        "LabelTerm",
    ),
    "trainer.loading": ("KnowledgeLoader", "TokenLoader", "TokenBatch"),
    "trainer.batch": ("Batch", "HiddenTarget", "AttentionTarget"),
    "trainer.losses": (
        "hidden_loss",
        "attention_loss",
        "soft_label_loss",
        "label_loss",
        "vocabulary_loss",
        "VocabularyLoss",
        "OutputHead",
        "GoldTokens",
        "DrawnTokens",
        "TopTokens",
        "TeacherStates",
    ),
}
"""Names that programs may use, by the module that they import them from. All else may change with any version."""

INNER = {
    "Cache": ("__init__", "shelf", "ahead"),
    "Layout": ("definition", "memory", "recalls", "recalling", "listed"),
    "KnowledgeLoader": ("reader", "windows", "produce", "order", "plan", "seek", "slices"),
    "TokenLoader": ("windows", "produce", "order", "plan", "seek", "slices"),
}
"""Members of these classes that are the affair of the packages alone."""

# Where a door of a package leads: a room of the same name lies over the function as soon as anything of it is imported.
_DOORS = {("hskcache", "build"): "hskcache.build.keywords"}
_OURS = re.compile(r"(hskcache|trainer)\b")
# Of every model of pydantic, and no affair of who reads about one.
_MACHINERY = ("hskcache.strict", "pydantic")
_MODEL = ("further", "kind", "later", "model_config", "needs_language", "needs_task")
_MAGIC = ("__init__", "__getitem__")
_ATTRIBUTES = re.compile(r"^Attributes:\n((?:\n|    .*(?:\n|\Z))+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    (\w[\w, ]*): (.*\n?(?:^        .*\n?|\n)*)", re.MULTILINE)
_ROLE = re.compile(r":(?:mod|func|data|const|class|meth|attr|exc|obj):`(~?)([^`]+)`")

_INDEX = """
{% extends "default/index.html.jinja2" %}
{% block title %}Reference of hskcache{% endblock %}
{% block nav %}
    <h2>Modules</h2>
    <ul>
    {% for name in all_modules %}<li><a href="{{ name.replace(".", "/") }}.html">{{ name }}</a></li>{% endfor %}
    </ul>
{% endblock %}
{% block content %}
    <header class="pdoc">
        <h1>hskcache in Python</h1>
        <input type="search" placeholder="Search" aria-label="search box">
    </header>
    <main class="pdoc">
    <section class="module-info">
    <p>What programs may use. How it goes together, the page on Python of the guide shows: <code>hskcache help
    python</code>.</p>
    {% for name, module in all_modules.items() %}
        <h5><a href="{{ name.replace(".", "/") }}.html"><code>{{ name }}</code></a></h5>
        <p>{{ module.docstring.partition("\n\n")[0] | replace("``", "") }}<br>
        {% for one in module.members %}
            <a href="{{ name.replace(".", "/") }}.html#{{ one }}">{{ one }}</a>{{ "," if not loop.last }}
        {% endfor %}</p>
    {% endfor %}
    </section>
    </main>
    {% include "search.html.jinja2" %}
{% endblock %}
"""


def write(folder: Path) -> None:
    """Write the pages, an index and what searches them."""
    pages = {name: doc.Module(_face(name, names)) for name, names in PUBLIC.items()}
    places = _places(pages)
    for page in pages.values():
        for one in (page, *page.members.values()):
            _complete(one, places, page.modulename)
    render.configure(docformat="google", show_source=False)
    theirs = render.env.loader
    assert theirs is not None
    render.env.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"index.html.jinja2": _INDEX}), theirs])
    render.env.globals["is_public"] = lambda one: "true" if _is_shown(one) else ""
    # Annotations name classes by the files that they are written in; a link leads to the page that shows them.
    homes = {one.taken_from[0]: page for page in pages.values() for one in page.members.values()}
    files = {name.replace(".", "/"): render.html_module(page, homes | pages) for name, page in pages.items()}
    files["index"] = render.html_index(pages)
    for name, text in files.items():
        path = folder / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "search.js").write_text(render.search_index(pages), encoding="utf-8")


def _face(name: str, names: tuple[str, ...]) -> ModuleType:
    """A module that holds the public names of another one and nothing else: many of ours load theirs on first use."""
    face = ModuleType(name, import_module(name).__doc__)
    face.__all__ = names  # type: ignore[attr-defined]
    for one in names:
        setattr(face, one, getattr(import_module(_DOORS.get((name, one), name)), one))
    return face


def _places(pages: dict[str, doc.Module]) -> dict[Any, tuple[str, str]]:
    """Page and anchor of all that is shown, by its name there and by the id of the object itself."""
    places: dict[Any, tuple[str, str]] = {}
    for name, page in pages.items():
        places[name] = (name, "")
        for one in page.members.values():
            members = one.members.values() if isinstance(one, doc.Class) else ()
            for part in (one, *filter(_is_shown, members)):
                places[part.fullname] = (name, part.qualname)
                if part.obj is not None:
                    places.setdefault(id(part.obj), (name, part.qualname))
    return places


def _complete(one: doc.Doc[Any], places: dict[Any, tuple[str, str]], page: str) -> None:
    """Give a part of a page, and what it holds, its own words, links for roles, and types without what checks them."""
    if isinstance(one, doc.Class):
        one.own_members = [member for member in one.members.values() if _is_shown(member)]
        one.inherited_members = {}
        # A base that has no place is none of a reader's affairs.
        one.bases = [(*places[id(base)], base.__name__) for base in one.obj.__bases__ if id(base) in places]
        one.decorators = []
        _share_attributes(one)
        for member in one.own_members:
            _complete(member, places, page)
    elif isinstance(one, doc.Function):
        one.signature = _bare_signature(one.signature)
    elif isinstance(one, doc.Variable):
        one.annotation = _bare(one.annotation)
    scopes = _scopes(one, page)
    one.docstring = _ROLE.sub(lambda role: _linked(role, places, page, scopes), one.docstring)


def _is_shown(one: doc.Doc[Any]) -> bool:
    """True of what a module says is public, and of its members what is of our own and no machinery."""
    owner, _, name = one.qualname.rpartition(".")
    if not owner:
        return True
    if not _OURS.match(one.taken_from[0]) or one.taken_from[0].startswith(_MACHINERY) or name in _MODEL:
        return False
    return name not in INNER.get(owner, ()) and (name in _MAGIC or not name.startswith("_"))


def _share_attributes(one: doc.Class) -> None:
    """Move what a class and its bases say of their attributes to the attributes."""
    said: dict[str, str] = {}
    for base in reversed(one.obj.__mro__):
        section = _ATTRIBUTES.search(inspect.cleandoc(base.__doc__ or "") + "\n")
        if _OURS.match(base.__module__) and section is not None:
            for names, text in _ATTRIBUTE.findall(section[1]):
                said |= dict.fromkeys(names.split(", "), inspect.cleandoc(text))
    own = {member.name: member for member in one.own_members}
    for name in said.keys() & own.keys():
        own[name].docstring = own[name].docstring or said[name][:1].upper() + said[name][1:]
    one.docstring = _ATTRIBUTES.sub("", one.docstring + "\n").strip()


def _bare(annotation: Any) -> Any:
    """A type without the checks that it is annotated with."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    parts = tuple(map(_bare, get_args(annotation)))
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return reduce(or_, parts)
    return annotation if parts == get_args(annotation) else get_origin(annotation)[parts]


def _bare_signature(signature: inspect.Signature) -> inspect.Signature:
    parameters = [one.replace(annotation=_bare(one.annotation)) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=_bare(signature.return_annotation))


def _scopes(one: doc.Doc[Any], page: str) -> list[Any]:
    """Objects whose attributes a short name in a docstring may be: the class that it stands in, then the module."""
    module = sys.modules[one.taken_from[0] if one.qualname else page]
    owners = {one.taken_from[1].partition(".")[0], one.qualname.partition(".")[0]}
    return [*(getattr(module, owner) for owner in owners if hasattr(module, owner)), module]


def _linked(role: re.Match[str], places: dict[Any, tuple[str, str]], page: str, scopes: list[Any]) -> str:
    """A role as a link in Markdown where its target has a place, else as code."""
    is_short, target = role.groups()
    target_id = next((id(found) for scope in scopes if (found := _attribute(scope, target)) is not None), None)
    place = places.get(target) or places.get(target_id) or places.get(id(_object(target)))
    text = target.rpartition(".")[2] if is_short or place is not None else target
    if place is None:
        return f"``{text}``"
    return f"[`{text}`]({relative_link(page, place[0])}{'#' * bool(place[1])}{place[1]})"


def _attribute(scope: Any, target: str) -> Any:
    for name in target.split("."):
        scope = getattr(scope, name, None)
    return scope


def _object(name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None


@click.command()
@click.argument("folder", default="reference", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Write the reference of the Python face as HTML into FOLDER, by default ./reference."""
    try:
        write(folder)
    except OSError as error:
        raise click.UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    click.echo(folder / "index.html")


if __name__ == "__main__":
    main(prog_name="tools/reference")
