"""Caches, built from a teacher. Needs the extra ``teacher``.

By floors; each uses those below it alone:

- commands: ``build``, ``corpus`` (a build over plain text), ``append`` (rows), ``addition`` (a field), ``estimate``;
- ``writing``, shard by shard, and ``agreement`` of what was written with the labels;
- ``constants`` of all rows, and ``extract``, the arrays of a shard; both of what ``positions``, ``knowledge`` (hidden
  states) and ``attention`` keep of a captured batch; ``nonfinite``, rows without a value;
- ``job``, a build before the teacher runs, over the ``layout`` of its cache.
"""
