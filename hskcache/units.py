"""Sizes, speeds and durations as people write and read them."""

import re

from hskcache.errors import SpecError


def human_bytes(num_bytes: float) -> str:
    """A size for people, in powers of ten: ``1.25 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.2f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.2f} TB"


def human_rate(speed: float, unit: str) -> str:
    """A speed for people: ``1,250 rows/s``, ``2.5 steps/s``, below one a second ``3.2 s/step``, ``4.10 MB/s``."""
    if unit == "bytes":
        return f"{human_bytes(speed)}/s"
    if speed < 1:
        return f"{1 / speed:.1f} s/{unit.removesuffix('s')}"
    return f"{speed:,.{1 if speed < 10 else 0}f} {unit}/s"


def human_time(seconds: float) -> str:
    """A duration for people: ``42 s``, ``3 min 5 s``, ``2 h 7 min``, ``3 d 4 h``."""
    parts = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)]
    rest = max(0, round(seconds))
    first = next((place for place, (_, size) in enumerate(parts) if rest >= size), len(parts) - 1)
    words: list[str] = []
    for unit, size in parts[first : first + 2]:
        count, rest = divmod(rest, size)
        if count or not words:
            words.append(f"{count} {unit}")
    return " ".join(words)


def parse_bytes(text: str, flag: str) -> int:
    """Bytes of a size such as ``500MB``, ``1.5 TB``, ``20GiB`` or ``1000``. Raises SpecError if it is none."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?) *([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    num_bytes = 0
    if match is not None:
        power = " kmgt".index(match[2].lower() or " ")
        num_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if num_bytes < 1:
        raise SpecError(f"{flag} {text!r} is not a size; give one such as 500MB or 20GB")
    return num_bytes
