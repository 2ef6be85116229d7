"""Fails where a package is installed in another version than the lowest that pyproject.toml admits.

A floor that no resolver can reach, because another package needs more, is one that nothing was ever tested with.
"""

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

# What tools/lowest takes from elsewhere.
CHOSEN = {"hskcache", "torch"}


def unmet(requirement: Requirement) -> str | None:
    """Problem of one requirement, or None."""
    floors = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    installed = Version(Version(version(requirement.name)).public)
    if not floors:
        return f"{requirement} has no lowest version; {installed} is installed"
    return None if max(floors) == installed else f"{requirement}: {installed} is the lowest that can be installed"


def main() -> None:
    """Look at every requirement of the package and of its extras."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = {*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)}
    wrong = [unmet(each) for each in map(Requirement, sorted(lines)) if each.name not in CHOSEN]
    if faults := [fault for fault in wrong if fault is not None]:
        sys.exit("\n".join(["floors that nothing tests:", *faults]))


if __name__ == "__main__":
    main()
