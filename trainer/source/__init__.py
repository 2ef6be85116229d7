"""Sources of knowledge, and whether it fits: all that is known before a student is trained.

By floors, each over those behind it: ``source``, a cache, and ``live``, a teacher in the loop; ``gate``, whether the
knowledge fits the recipe and the student; ``knowledge``; ``objective``, the losses of a stage, with ``projections``.
"""
