"""Comparison of two caches: ``difference``, with the rows that both have (``matched``) and their ``values``."""
