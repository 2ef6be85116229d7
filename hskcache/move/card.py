"""The data card that goes with a cache: what it is, where it comes from, how to check it and to train from it.

It begins with the YAML that the Hugging Face hub reads. The licence is left to whoever shares it. The last line is a
digest of the rest, so that a card which was edited is known as its author's and never replaced.
"""

import re
import shlex

import yaml

from hskcache.counted import counted
from hskcache.describe import DESCRIPTIONS
from hskcache.move.commands import fit_command
from hskcache.spec import format_keep
from hskcache.store.fields import KINDS
from hskcache.store.files import sha256_hex
from hskcache.store.manifest import Manifest, Request
from hskcache.units import human_bytes

_MARK = re.compile(rb"<!-- hskcache ([0-9a-f]{64}) -->\n\Z")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_TASKS = {
    "tagging": "token-classification",
    "text": "fill-mask",
    "none": "sentence-similarity",
    "language": "text-generation",
}
"""Names of the hub; whatever else is asked of rows is called text-classification there."""


def card(manifest: Manifest, url: str) -> bytes:
    """The README.md of a cache.

    Args:
        manifest: of the cache.
        url: where it will be, as people may read it.
    """
    text = "\n\n".join(
        (
            _front(manifest),
            _introduction(manifest),
            _fields(manifest),
            _origin(manifest),
            _use(manifest, url),
            _privacy(manifest),
        )
    )
    return marked(text)


def marked(text: str) -> bytes:
    """A card with the last line by which :func:`is_card` knows it."""
    data = f"{text}\n\n".encode()
    return data + f"<!-- hskcache {sha256_hex(data)} -->\n".encode()


def is_card(data: bytes) -> bool:
    """True if a README.md is a card that nobody has edited."""
    mark = _MARK.search(data)
    return mark is not None and sha256_hex(data[: mark.start()]) == mark[1].decode()


def _front(manifest: Manifest) -> str:
    request = manifest.request
    values = {
        "pretty_name": f"{word(request.data.name)}, as {word(request.teacher.name)} knows it",
        "tags": ["hskcache", "knowledge-distillation"],
        "task_categories": [_TASKS.get(request.data.problem, "text-classification")],
        "size_categories": [next((name for most, name in _SIZES if request.num_rows < most), "n>10M")],
        "viewer": False,
    }
    written = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return f"---\n# license: choose the one that the data and the teacher allow\n{written}\n---"


def _introduction(manifest: Manifest) -> str:
    request, num_bytes = manifest.request, manifest.num_bytes
    text = (
        f"# What {word(request.teacher.name)} knows of {word(request.data.name)}\n\n"
        f"A cache of {counted(request.num_rows, 'row')}, {human_bytes(num_bytes)}, to train smaller models "
        "from with no "
        f"teacher in memory. Cache id `{manifest.cache_id}`: the same id means the same bytes."
    )
    if manifest.part is not None:
        part = manifest.part
        text += f" It is a part, rows {part.start:,} to {part.stop:,}, of the cache `{part.cache_id}`."
    return text


def _fields(manifest: Manifest) -> str:
    lines = ["| field | what | bytes |", "|---|---|---|"]
    for name, field in manifest.fields.items():
        holds = DESCRIPTIONS[field.kind].holds
        if name in manifest.added:
            holds += f" of {word(manifest.added[name].teacher.name)}"
        lines.append(f"| `{name}` | {holds} | {human_bytes(manifest.field_bytes(name))} |")
    return "\n".join(lines)


def _origin(manifest: Manifest) -> str:
    request = manifest.request
    lines = ["## Where it comes from", "", *_teacher("teacher", request)]
    for part in request.parts:
        split = f", split {word(part.split)}" if part.split else ""
        lines.append(
            f"- data: {word(part.name)}{split}, {counted(part.num_rows, 'row')}, fingerprint `{word(part.fingerprint)}`"
        )
    lines.append(f"- tokenizer: {counted(request.tokenizer.vocab_size, 'piece')}, SHA-256 `{request.tokenizer.sha256}`")
    spec = request.spec
    options = (f"{one.noun} `{format_keep(KINDS[name].kept(spec))}`" for name, one in DESCRIPTIONS.items() if one.flag)
    lines.append(
        f"- kept: {', '.join(options)}, at most {counted(spec.max_length, 'token')} a row"
        + (f", those {spec.windows.told}" if spec.windows is not None else "")
        + (f", {spec.packing.told}" if request.data.problem == "text" else "")
    )
    for name in manifest.added:
        lines += _teacher(f"teacher of `{name}`", manifest.request_for(name))
    return "\n".join(lines)


def _teacher(label: str, request: Request) -> list[str]:
    teacher = request.teacher
    revision = f", revision {word(teacher.revision)}" if teacher.revision else ""
    shape = f"{word(teacher.model_type)}, {counted(teacher.num_layers, 'layer')}, width {teacher.width}"
    return [f"- {label}: {word(teacher.name)}{revision} ({shape}), weights `{teacher.weights_sha256}`"]


def _use(manifest: Manifest, url: str) -> str:
    name = url.rpartition("/")[2]
    pull, verify = shlex.join(["hskcache", "pull", url, name]), shlex.join(["hskcache", "verify", name])
    return (
        "## How to use it\n\n"
        f"```bash\npip install 'hskcache[share,student]'\n{pull}\n{verify}\n"
        f"{fit_command(manifest, name)}\n```\n\n"
        f"`hskcache pull --fields` and `--rows` fetch a part, and `hsktrain fit --cache {url}` trains without fetching "
        "everything first. `hskcache info --spec` prints what was asked for."
    )


def _privacy(manifest: Manifest) -> str:
    kept = "It keeps the texts as they are. " if any(part.has_text for part in manifest.request.parts) else ""
    return (
        f"## Privacy\n\n{kept}Token ids are the text. Hidden states, attention scores and logits reveal it as well, "
        "even without the ids. Share this cache with nobody who may not read the data."
    )


def word(text: str) -> str:
    """A name from elsewhere as one word of a line, without what Markdown or HTML would take for its own.

    Of a path of the machine that built the cache, nobody needs more than the last part.
    """
    if text.startswith(("/", "./", "../", "~")):
        text = text.rstrip("/").rpartition("/")[2]
    return re.sub(r"[|`<>\[\]\s]+", " ", text).strip()[:200] or "unnamed"
