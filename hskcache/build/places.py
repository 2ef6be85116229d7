"""Sites by what people call them: the folders and the URLs that a cache can be built at."""

from pathlib import Path

from hskcache.build.depot import DepotSite
from hskcache.build.site import Site
from hskcache.depot.stores import SCHEMES, open_stores
from hskcache.errors import CacheError
from hskcache.remote.place import folder_of


def site_at(out: Path | str, is_part: bool = False) -> Site:
    """The site at a path or a URL; nothing is read or made.

    Args:
        out: a folder, ``file:///folder``, or the URL of an object store.
        is_part: whether each worker has shards of its own.

    Raises:
        CacheError: nothing can be built at such a URL, or what reaches it is not installed.
    """
    from hskcache.build.folder import FolderSite

    if (root := folder_of(out)) is not None:
        return FolderSite(root)
    scheme = str(out).partition("://")[0]
    if scheme.lower() not in SCHEMES:
        raise CacheError(
            f"nothing can be built at {scheme}://; give a folder, s3://, gs:// or az://, or build in a folder and push"
        )
    return DepotSite(open_stores(str(out)), is_part)
