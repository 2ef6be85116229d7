"""Workers that build one cache in a bucket and die at random requests, as a program of their own.

``python bucket_workers.py PLAN.json`` prints how each ended. Workers are forked from a process that has all libraries
and never uses obstore, which takes no forks.
"""

import json
import os
import random
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """A build by several workers.

    Attributes:
        teacher, data: of the build.
        url: of the cache.
        num_workers: at once.
        rounds: times that all of them are started before the last time, in which none dies.
        longest: requests after which each of a round is dead at the latest.
        parts: whether each writes a part of its own.
        seed: of when they die.
    """

    teacher: str
    data: str
    url: str
    num_workers: int = 3
    rounds: int = 3
    longest: int = 120
    parts: bool = False
    seed: int = 0


def request_of(plan: Plan, part: Any = None) -> Any:
    """The build, of ten shards of three fields."""
    from hskcache.build.request import BuildRequest, Texts
    from hskcache.spec import Hidden, Length, Spec, Width
    from hskcache.text.layout import Layout

    width = Width(scheme="pca", fraction=0.25)
    hidden = Hidden(length=Length(tokens=4), width=width, encoding="int8")
    spec = Spec(hidden=hidden, shard_rows=10, token_budget=80, max_length=48)
    return BuildRequest(plan.teacher, Texts(plan.data, Layout("sst2")), spec, "cpu", part=part)


def write_plan(path: Path, plan: Plan) -> Path:
    path.write_text(json.dumps(asdict(plan)))
    return path


def _hasten() -> None:
    """Let claims of the dead end soon."""
    from hskcache.store.depots import claims, ledger

    claims.LEASE_S, claims._LOOK_S, ledger._LOOK_S = 2.0, 0.05, 0.05
    claims.DepotClaims.poll_s = 0.05


def _die_at(number: int, after: bool) -> None:
    """Have this process killed at one of its requests, before it is sent or once it has taken effect."""
    from hskcache.depot.stores import Stores

    ask, count = Stores._ask, 0

    def dying(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = ask(self, *args)
        if count >= number:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    Stores._ask = dying  # type: ignore[method-assign]


def _work(plan: Plan, number: int, death: tuple[int, bool] | None) -> None:
    from hskcache.build.request import WorkerPart
    from hskcache.build.requested import build

    _hasten()
    if death is not None:
        _die_at(*death)
    build(request_of(plan, WorkerPart(number + 1, plan.num_workers) if plan.parts else None), plan.url)


def _start(plan: Plan, number: int, death: tuple[int, bool] | None) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(150)
            _work(plan, number, death)
            code = 0
        except BaseException:  # noqa: BLE001 - told, as there is nobody to catch it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def main(path: str) -> None:
    """Start all workers of each round at once, and tell how they ended."""
    import torch
    import transformers  # noqa: F401

    import hskcache.build.build
    import hskcache.build.requested
    import hskcache.depot.stores  # noqa: F401

    torch.set_num_threads(1)
    plan = Plan(**json.loads(Path(path).read_text()))
    draw = random.Random(plan.seed)
    codes = []
    for round_ in range(plan.rounds + 1):
        is_last = round_ == plan.rounds
        deaths = [
            None if is_last else (draw.randint(1, plan.longest), draw.random() < 0.5) for _ in range(plan.num_workers)
        ]
        children = [_start(plan, number, death) for number, death in enumerate(deaths)]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
    print(json.dumps(codes))


if __name__ == "__main__":
    main(sys.argv[1])
