"""A damaged cache, mended from what is certain.

Without a teacher: ``mending``, from another copy (``replica``), and ``advice`` on what could not be mended. With one,
which needs the extra ``teacher``: ``recompute`` makes damaged shards again in a ``workplace``.
"""
