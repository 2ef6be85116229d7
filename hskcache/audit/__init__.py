"""A cache beside what its teacher gives now: ``audit``, what to ``measure``, its ``findings`` and their ``origins``."""
