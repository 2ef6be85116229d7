"""Sources of knowledge, and whether it fits: all that is known before a student is trained.

By floors; each uses those below it alone:

- ``source``, a cache, and ``live``, a teacher in the loop;
- ``gate``: does the knowledge fit the recipe and the student?
- ``knowledge``: what there is to learn from; ``objective``, the losses of a stage, through ``projections``;
- ``matches``: which layers learn from which.
"""
