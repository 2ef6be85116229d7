"""Find the small files that ship with the product: task presets, recipes, the demo's data generator."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder, in an installed wheel (``hskcache/data``) or in a checkout (``data``)."""
    installed = _PACKAGE / "data"
    root = installed if installed.is_dir() else _PACKAGE.parent / "data"
    return root.joinpath(*parts)
