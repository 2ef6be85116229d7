"""Cases that may do anything, run in children under limits of memory and time, each of them told apart afterwards."""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

Case = Callable[[int], dict[str, Any]]

# What nothing that reads a cache has a reason to do.
_FORBIDDEN = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "socket.connect"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_BATCH = 250


class Limits(NamedTuple):
    """Outcome of a case.

    Attributes:
        memory_bytes: address space beyond what the process has when it begins.
        seconds: after which it is ended.
        folder: the only one that may be written to.
    """

    memory_bytes: int
    seconds: float
    folder: Path


class Outcome(NamedTuple):
    """Outcome of a case.

    Attributes:
        number: of the case.
        facts: what it returned; empty where it did not.
        fault: what went wrong instead, or None.
        seconds: it took.
        grown_bytes: by which it raised the peak of the process's memory.
    """

    number: int
    facts: dict[str, Any]
    fault: str | None
    seconds: float
    grown_bytes: int


def guarded(case: Case, numbers: range, limits: Limits, notes: Path) -> Iterator[Outcome]:
    """Run cases by number, a few hundred to a child; one that kills its child costs no other.

    Args:
        case: is called with its number, in a child.
        numbers: of the cases.
        limits: of each.
        notes: file that the children write what they find to.
    """
    first = numbers.start
    while first < numbers.stop:
        batch = range(first, min(first + _BATCH, numbers.stop))
        notes.write_bytes(b"")
        child = os.fork()
        if child == 0:
            _run(case, batch, limits, notes)
        code = _ended(child, notes, limits.seconds)
        lines = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
        found = [Outcome(**line) for line in lines if "seconds" in line]
        yield from found
        first += len(found)
        if len(found) < len(batch):
            yield Outcome(first, {}, f"ends its process with exit code {code}", limits.seconds, 0)
            first += 1


def _run(case: Case, batch: range, limits: Limits, notes: Path) -> NoReturn:
    """The child."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        most = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        signal.signal(signal.SIGALRM, _too_slow)
        with notes.open("a", encoding="utf-8") as file:
            harm: list[str] = []
            sys.addaudithook(_watching(harm, (limits.folder, notes)))
            for number in batch:
                outcome = _outcome(case, number, limits, harm)
                file.write(json.dumps(outcome._asdict()) + "\n")
                file.flush()
        os._exit(0)
    except BaseException:  # noqa: BLE001  (a fork ends here whatever happens)
        traceback.print_exc()
        os._exit(1)


def _outcome(case: Case, number: int, limits: Limits, harm: list[str]) -> Outcome:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    facts, fault = {}, None
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    try:
        facts = case(number)
    except BaseException:  # noqa: BLE001  (whatever ends a case is what is looked for)
        fault = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if harm:
        fault = f"{harm[0]}\n{fault or ''}"
        harm.clear()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Outcome(number, facts, fault, time.monotonic() - start, grown * 1024)


def _watching(harm: list[str], places: tuple[Path, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    allowed = tuple(str(place) for place in places)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            harm.append(f"did {event}")
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & _WRITES:
            if not arguments[0].startswith((*allowed, "/dev/null")):
                harm.append(f"wrote to {arguments[0]}")
        elif event == "open" and isinstance(arguments[0], str) and arguments[0].startswith("/etc/passwd"):
            harm.append(f"read {arguments[0]}")

    return hook


def _too_slow(_signal: int, _frame: Any) -> NoReturn:
    raise TimeoutError("takes too long")


def _ended(child: int, notes: Path, seconds: float) -> int:
    """Exit code of a child, which is killed where it has written nothing for longer than a case may take."""
    size, since = 0, time.monotonic()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if notes.stat().st_size != size:
            size, since = notes.stat().st_size, time.monotonic()
        elif time.monotonic() - since > 2 * seconds + 10:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.01)
