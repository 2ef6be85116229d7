"""A teacher: loaded, made lean, and its knowledge captured in one pass. Needs the extra ``teacher``."""
