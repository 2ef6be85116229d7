"""The whole of a study in one folder: what is done is not done again, and several processes share what is left."""

import gc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from hskcache import console, remarks, runtime
from hskcache.disk import require_space, require_writable, writing_to
from hskcache.errors import MismatchError, SpecError
from hskcache.studied import RESULTS, StudyResults, read_results
from hskcache.units import human_time
from trainer.run import processes
from trainer.run.request import Machine
from trainer.run.requested import fit
from trainer.study.cells import CELLS, StudyCell, run_all
from trainer.study.cost import Cost, cost_of
from trainer.study.curves import PLOT, plot
from trainer.study.outcome import WRITING, Study, write
from trainer.study.prepare import prepared
from trainer.study.request import StudyRequest

_WEIGHTS = "*.safetensors"
_OWN = frozenset({CELLS, WRITING})


def study(request: StudyRequest, out: Path, machine: Machine) -> StudyResults:
    """Train the students of all points and seeds that are not trained yet, and compare them.

    Args:
        request: of the study.
        out: its folder; ``results.json``, ``results.csv`` and ``study.png`` are written there, the first two after
            every run, so that what is cut off can be read.
        machine: how to compute.

    Raises:
        SpecError: there are several processes of one run, or an axis, view or recipe is none.
        MismatchError: the cache cannot serve the study, or the folder holds something else.
        CacheError: whatever else does not fit, before the first run; or the disk is full.
        Interrupted: by SIGINT or SIGTERM; the same request goes on.
    """
    with remarks.once():
        return _study(request, out, machine)


def _study(request: StudyRequest, out: Path, machine: Machine) -> StudyResults:
    machine, asked = _begun(request, out, machine)
    cost = cost_of(asked.in_order, asked.sizes.cache, machine, not request.drops_students)
    console.say(f"study {asked.name}: {cost.told()}")
    require_space(
        out, cost.most_bytes, "the students of this study take", "leave their weights out with --drop-students"
    )
    with writing_to(out, "here"), console.going_on_from(lambda: "the runs that are done"):
        try:
            _run(asked, out, machine, request.drops_students)
        finally:
            # Also of what is cut off.
            with suppress(OSError):
                write(asked, out)
        results = write(asked, out)
        if any(point.scores for point in results.points):
            plot(results, request.plan.about, out / PLOT)
    return results


def estimate(request: StudyRequest, out: Path, machine: Machine) -> Cost:
    """The cost of a study; nothing of it is run. Raises as :func:`study`."""
    with remarks.once():
        machine, asked = _begun(request, out, machine)
        return cost_of(asked.in_order, asked.sizes.cache, machine, not request.drops_students)


def _begun(request: StudyRequest, out: Path, machine: Machine) -> tuple[Machine, Study]:
    if processes.count() > 1:
        raise SpecError(
            "hsktrain study runs each student in one process; start it without torchrun, several times with the same "
            "--out to share the runs"
        )
    _require_own(request, out)
    machine = replace(machine, device=runtime.resolve_device(machine.device))
    return machine, prepared(request, out, machine)


def _require_own(request: StudyRequest, out: Path) -> None:
    """Raise MismatchError unless a folder is new, empty, or that of a study of this name."""
    require_writable(out)
    if (out / RESULTS).is_file():
        if (name := read_results(out).name) != request.plan.name:
            raise MismatchError(
                f"{out} holds the study {name}, and this one is {request.plan.name}; give another --out, and --cells "
                f"{out / CELLS} to share its runs"
            )
        return
    # Another process may have begun to write there.
    if out.is_dir() and any(path.name not in _OWN for path in out.iterdir()):
        raise MismatchError(f"{out} is not empty and holds no study; give a new or an empty folder with --out")


def _run(asked: Study, out: Path, machine: Machine, drops_students: bool) -> None:
    cells = asked.in_order
    begun_s, durations_s = perf_counter(), list[float]()

    def run(cell: StudyCell) -> None:
        started_s = perf_counter()
        console.say(f"{cell.point.name}, seed {cell.seed}: {cell.folder}")
        fit(cell.request, cell.folder, machine, tells=not durations_s)
        if drops_students:
            for weights in cell.folder.glob(_WEIGHTS):
                weights.unlink()
        # In bfloat16 accelerate leaves the model in a cycle, which would wait on the device beside the next student.
        gc.collect()
        durations_s.append(perf_counter() - started_s)

    def tell(cell: StudyCell) -> None:
        write(asked, out)
        result = cell.result()
        num_left = sum(not one.is_done for one in cells)
        score = "" if result is None else f"{asked.metric} {result['scores'][asked.metric]:.4f}; "
        left = f", about {human_time(num_left * sum(durations_s) / len(durations_s))}" if durations_s else ""
        console.say(f"{cell.point.name}, seed {cell.seed}: {score}{num_left} of {len(cells)} runs left{left}")

    out.mkdir(parents=True, exist_ok=True)
    write(asked, out)
    run_all(cells, run, tell)
    if durations_s:
        console.say(f"{len(durations_s)} runs in {human_time(perf_counter() - begun_s)}")
