"""Free memory: of the machine, of the containers that a process runs in, and of each of several processes."""

from pathlib import Path

import pytest
import torch

from trainer.loading.memory import free_bytes, free_share
from trainer.loading.residency import choose

GIB = 1 << 30
UNLIMITED_1 = 9223372036854771712


def machine(root: Path, available: int, cgroup: str = "", mountinfo: str = "") -> Path:
    """What the kernel says of a machine, in files below ``root``."""
    (root / "proc" / "self").mkdir(parents=True)
    text = f"MemTotal: {1 << 40 >> 10} kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n"
    (root / "proc" / "meminfo").write_text(text, encoding="utf-8")
    (root / "proc" / "self" / "cgroup").write_text(cgroup, encoding="utf-8")
    (root / "proc" / "self" / "mountinfo").write_text(mountinfo, encoding="utf-8")
    return root


def group(folder: Path, **files: int | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n", encoding="utf-8")


MOUNT_2 = "31 23 0:28 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
MOUNT_1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def test_what_the_machine_has_left_counts_where_no_container_is(tmp_path: Path) -> None:
    """Pages of files are free for the asking: a cache that was just copied here does not make the memory full."""
    assert free_bytes(machine(tmp_path, 8 * GIB)) == 8 * GIB


def test_a_container_counts_by_what_is_left_to_its_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, 100 * GIB, "0::/job\n", MOUNT_2.format(top="/"))
    job = root / "sys/fs/cgroup/job"
    group(job, max=16 * GIB, high="max", current=6 * GIB, stat=f"anon 1\ninactive_file {2 * GIB}")
    assert free_bytes(root) == 12 * GIB
    group(job, high=10 * GIB)
    assert free_bytes(root) == 6 * GIB
    group(job, max="max", high="max")
    assert free_bytes(root) == 100 * GIB


def test_the_tightest_of_the_containers_around_a_process_holds(tmp_path: Path) -> None:
    root = machine(tmp_path, 100 * GIB, "0::/pod/job/step\n", MOUNT_2.format(top="/"))
    group(root / "sys/fs/cgroup/pod", max=10 * GIB, current=9 * GIB)
    group(root / "sys/fs/cgroup/pod/job", max=50 * GIB, current=5 * GIB)
    group(root / "sys/fs/cgroup/pod/job/step", max="max", current=2 * GIB)
    group(root / "sys/fs/cgroup/pod/other", max=1, current=1)
    assert free_bytes(root) == GIB


def test_a_container_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, 100 * GIB, "0::/job\n", MOUNT_2.format(top="/"))
    group(root / "sys/fs/cgroup/job", max=GIB, current=2 * GIB)
    assert free_bytes(root) == 0
    assert choose("auto", 1000, torch.device("cpu"), root) == "stream"


@pytest.mark.parametrize(
    ("path", "top", "inside"),
    [("/slurm/job_7", "/", "slurm/job_7"), ("/docker/c0ffee", "/docker/c0ffee", ""), ("/", "/docker/c0ffee", "")],
)
def test_groups_of_the_first_version_are_known_too(path: str, top: str, inside: str, tmp_path: Path) -> None:
    """On a cluster, in a container that sees its own group at the top, and in one that is told it is at the top."""
    root = machine(tmp_path, 100 * GIB, f"9:cpu:/\n4:memory:{path}\n0::/\n", MOUNT_1.format(top=top))
    memory = root / "sys/fs/cgroup/memory"
    group(memory, limit_in_bytes=UNLIMITED_1, usage_in_bytes=70 * GIB)
    pages = f"inactive_file 5\ntotal_inactive_file {GIB}"
    group(memory / inside, limit_in_bytes=8 * GIB, usage_in_bytes=4 * GIB, stat=pages)
    assert free_bytes(root) == 5 * GIB


def test_processes_of_one_machine_share_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, 8 * GIB)
    assert choose("auto", GIB, torch.device("cpu"), root) == "host"
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_share(root) == 2 * GIB
    assert choose("auto", GIB, torch.device("cpu"), root) == "stream"
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert free_share(root) == GIB // 2
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_share(root) == 8 * GIB, "a process that was started by itself is alone"


def test_without_such_files_the_system_is_asked(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) < 1 << 50
    assert 0 < free_bytes() < 1 << 50
