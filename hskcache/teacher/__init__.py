"""Load a teacher, capture its knowledge in one pass, and build a cache from it. Needs the extra ``teacher``."""
