"""A model to a URL: its files beside each other, the weights first and the configuration that makes them a model last.

A URL holds a whole model or, until the same command has gone on, none that a library would load. To the Hugging Face
hub all files go as one commit, by its own library; that way was never run against the live hub.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hskcache.depot.retry import reaching
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import WRITING
from hskcache.move.card import is_card
from hskcache.remote.fetch import remote_sha256
from hskcache.remote.remote import Remote, open_remote
from hskcache.store.beside import MAX_README_BYTES, README
from hskcache.versions import version_of

_CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".bin")
# Of this machine alone: what a run was asked for with, and who writes the folder.
_OWN = frozenset({"asked.json", WRITING})
_HUB = "hf://"


@dataclass(frozen=True)
class PushedModel:
    """Outcome of a push.

    Attributes:
        url: as people may read it.
        num_sent: files that were sent.
        num_there: files that were there.
        bytes_sent: of those that were sent.
    """

    url: str
    num_sent: int
    num_there: int
    bytes_sent: int


def model_files(folder: Path) -> list[Path]:
    """The files of a model that leave with it, in the order in which they are sent.

    Raises:
        CacheError: it is no folder of a model, or one whose training is not finished.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if _CONFIG not in names or not any(name.endswith(_WEIGHTS) for name in names):
        raise CacheError(f"{folder} is no folder of a model: it has no {_CONFIG} or no weights")
    if "run.json" in names and "metrics.json" not in names:
        raise CacheError(f"{folder} holds a run that is not finished; the command that began it goes on with it")
    sent = [name for name in names - _OWN if not name.startswith(".") and not name.endswith(".tmp")]
    files = [folder / name for name in sent if (folder / name).is_file()]
    return sorted(files, key=lambda path: (path.name == _CONFIG, path.suffix not in _WEIGHTS, path.name))


def push_model(
    folder: Path, url: str, replace: bool = False, on_bytes: Callable[[int], object] = lambda _count: None
) -> PushedModel:
    """Send the files of a model to a URL where there is none, or a part of it.

    Args:
        folder: of the model.
        url: where it is to go; of the hub ``hf://USER/NAME``.
        replace: whether another model at the URL is to be replaced.
        on_bytes: called with the size of each file that is there.

    Raises:
        CacheError: there is no finished model, or the URL cannot be written or is out of reach.
        MismatchError: another model is at the URL.
    """
    files = model_files(folder)
    remote = open_remote(url)
    if url.startswith(_HUB):
        return _to_hub(folder, files, remote.url, replace)
    if remote.is_read_only:
        raise CacheError(
            f"{remote.url} cannot be written: http servers only give; push to s3://, gs://, sftp://, hf:// or file://"
        )
    missing = [path for path in files if not _is_there(remote, path)]
    if not replace:
        for path in missing:
            if path.name != README and remote.size(path.name) is not None:
                raise MismatchError(f"{remote.describe(path.name)} is of another model; give another URL, or --replace")
    elif missing:
        # Until all is there, what stands is no model that would load.
        remote.remove(_CONFIG)
        missing = [path for path in files if path in missing or path.name == _CONFIG]
    sent = 0
    for path in files:
        if path in missing and not (path.name == README and _is_edited(remote)):
            remote.write(path.name, path.read_bytes())
            sent += path.stat().st_size
        on_bytes(path.stat().st_size)
    return PushedModel(remote.url, len(missing), len(files) - len(missing), sent)


def _is_there(remote: Remote, path: Path) -> bool:
    """True if a file is at the URL with the content that it has here."""
    num_bytes = path.stat().st_size
    if remote.size(path.name) != num_bytes:
        return False
    with path.open("rb") as file:
        return remote_sha256(remote, path.name, num_bytes) == hashlib.file_digest(file, "sha256").hexdigest()


def _is_edited(remote: Remote) -> bool:
    """True if a README.md is at the URL that is no card of ours any more."""
    with suppress(FileNotFoundError):
        try:
            return not is_card(remote.read(README, MAX_README_BYTES))
        except DamageError:
            return True
    return False


def _to_hub(folder: Path, files: list[Path], url: str, replace: bool) -> PushedModel:
    from huggingface_hub import HfApi

    repository, inner = _repository(url)
    with reaching(url, lambda text: text):
        api = HfApi(library_name="hskcache", library_version=version_of("hskcache"))
        api.create_repo(repository, exist_ok=True)
        weights = [path for path in files if path.suffix in _WEIGHTS]
        there = {
            Path(one.path).name: lfs.sha256
            for one in api.get_paths_info(repository, [f"{inner}{path.name}" for path in weights])
            if (lfs := getattr(one, "lfs", None)) is not None
        }
        for path in weights:
            with path.open("rb") as file:
                ours = hashlib.file_digest(file, "sha256").hexdigest()
            if not replace and there.get(path.name, ours) != ours:
                raise MismatchError(f"{url}/{path.name} is of another model; give another URL, or --replace")
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            path_in_repo=inner.rstrip("/") or None,
            allow_patterns=[path.name for path in files],
            commit_message=f"{folder.resolve().name}, by hskcache {version_of('hskcache')}",
        )
    return PushedModel(url, len(files), 0, sum(path.stat().st_size for path in files))


def _repository(url: str) -> tuple[str, str]:
    """The repository of a URL of the hub, and the folder in it with a slash at its end, or empty."""
    parts = url.removeprefix(_HUB).strip("/").split("/")
    if len(parts) < 2 or parts[0] in {"datasets", "spaces"}:
        raise CacheError(f"{url} names no model of the hub; give hf://USER/NAME")
    return "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
