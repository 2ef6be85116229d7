"""The request that began a build in a depot, and the manifest that ended it, as they are read there."""

from collections.abc import Callable, Mapping

from hskcache.depot.abc import Depot
from hskcache.errors import DamageError, MismatchError
from hskcache.store.consistency import parse_manifest
from hskcache.store.fields import Field
from hskcache.store.manifest import Manifest
from hskcache.store.record import FieldName
from hskcache.store.request import BuildDraft
from hskcache.store.version2 import VERSION_2

_OF_MACHINES = ("device", "rows")
"""Entries of an environment in which workers may differ."""


class DepotDraft(BuildDraft):
    """A request as a build in a depot tells it; ``stored``: its fields, for whoever finishes it without a teacher.

    The ``environment`` is that of whoever began it; all workers must have its versions.
    """

    stored: dict[FieldName, Field]


def read_manifest(depot: Depot, name: str) -> Manifest:
    """The manifest of a cache in a depot, of the version of the format that is written, or its copy.

    Raises:
        FileNotFoundError: there is none.
        MismatchError: it is of another version.
        DamageError: it is damaged or was edited.
    """
    file = f"{depot.url}/{name}"
    manifest = parse_manifest(depot.get(name), file, _page_of(depot))
    if manifest.format != VERSION_2:
        raise MismatchError(
            f"{file} is of format version {manifest.format_version}, which is read and no longer written; build "
            "elsewhere"
        )
    if edits := manifest.edits():
        raise DamageError(f"{file} was edited: {edits[0]}; delete the cache and build it again")
    return manifest


def _page_of(depot: Depot) -> Callable[[str, int], bytes]:
    def read(path: str, most_bytes: int) -> bytes:
        data = depot.get_range(path, 0, most_bytes + 1)
        if len(data) > most_bytes:
            raise DamageError(f"has more than {most_bytes} bytes")
        return data

    return read


def require_versions(name: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Raise MismatchError unless a worker has the versions that a build began with."""
    for key, version in ours.items():
        if key not in _OF_MACHINES and theirs.get(key, version) != version:
            raise MismatchError(
                f"{name} is being built with {key} {theirs[key]}, and this worker has {key} {version}; give all "
                "workers the same"
            )
