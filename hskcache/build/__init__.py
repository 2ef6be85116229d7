"""Caches, built from a teacher. Needs the extra ``teacher``.

By floors; each uses those below it alone:

- ``keywords``, the door of Python: the room itself can be called, as ``hskcache.build(teacher, data, out=...)``;
- commands: ``build``, ``corpus`` (a build over plain text), ``append`` (rows), ``addition`` (a field), ``estimate``;
- ``writing``, shard by shard, and ``agreement`` of what was written with the labels;
- ``constants`` of all rows, and ``extract``, the arrays of a shard; both of what ``positions``, ``knowledge`` (hidden
  states) and ``attention`` keep of a captured batch; ``nonfinite``, rows without a value;
- ``job``, a build before the teacher runs, over the ``layout`` of its cache.
"""

import sys
from types import ModuleType
from typing import Any


class _Build(ModuleType):
    """The room, which ``hskcache.build`` is as soon as anything of it is imported, and the function of that name."""

    def __call__(self, teacher: Any, data: Any = None, **options: Any) -> Any:
        """Build a cache, see :func:`hskcache.build.keywords.build`."""
        from hskcache.build.keywords import build

        return build(teacher, data, **options)


sys.modules[__name__].__class__ = _Build
