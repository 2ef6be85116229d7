"""Rows with other content than those of the fixtures."""

import dataclasses
from typing import Any

from hskcache.text import Examples
from hskcache.text.rows import fingerprint


def with_content(examples: Examples, **changes: Any) -> Examples:
    """Other content with the fingerprint that belongs to it."""
    changed = dataclasses.replace(examples, **changes)
    digest = fingerprint(changed.texts, changed.pairs, changed.labels, changed.label_names)
    return dataclasses.replace(changed, fingerprint=digest)
