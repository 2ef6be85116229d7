"""Folders of caches: what is in them, and whether anything was written."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stored import MANIFESTS

from hskcache.store.files import sha256_hex
from hskcache.store.ledger import Ledger
from hskcache.store.request import BuildDraft

if TYPE_CHECKING:
    from hskcache.build.job import Job

# 8 shards of three fields, and constants that are fitted to a sample.
KEEP = {"keep": "4t_0.25h", "width__scheme": "pca", "encoding": "int8", "shard_rows": 5}


def contents(root: Path) -> dict[str, str]:
    """Digest of every file below a folder, the manifest included."""
    return {
        path.relative_to(root).as_posix(): sha256_hex(path.read_bytes()) for path in root.rglob("*") if path.is_file()
    }


def touched(root: Path) -> dict[str, tuple[int, int]]:
    """What changes if a file is written again, even with the same bytes."""
    return {path.as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")}


def unfinished_copy(job: "Job", whole: Path, tmp_path: Path) -> Path:
    """A build that was killed right before its manifest."""
    out = Path(shutil.copytree(whole, tmp_path / "unfinished"))
    ledger, manifest = Ledger(out), Ledger(out).manifest()
    for record in manifest.records:
        ledger.record_path(record.field, record.shard).write_text(record.model_dump_json())
    for name in manifest.fields:
        shutil.rmtree(out / name / "index")
    for name in MANIFESTS:
        (out / name).unlink()
    from hskcache.build.batching import NEWEST, told

    draft = BuildDraft(**dict(job.request), environment=told(NEWEST))
    (out / "building.json").write_text(draft.model_dump_json())
    return out
