"""A damaged cache, mended from what is certain: ``mending``, from another copy (``replica``), and ``advice``."""
