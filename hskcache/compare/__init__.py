"""How two caches differ: ``difference``, with the rows that both have (``matched``) and their ``values``."""
