"""A part of a cache seen as if it had been built so: fewer layers, positions, columns, rows or fields, nothing copied.

A view is planned from the manifest alone (``plan``); its shelf reads the shards of the cache and hands out the part of
them that a build of the narrower spec would have stored. What of a kind of field can be narrowed, and when that gives
the values of a build, its file here says.
"""

from hskcache.views.plan import viewed
from hskcache.views.view import View, parse_view

__all__ = ["View", "parse_view", "viewed"]
