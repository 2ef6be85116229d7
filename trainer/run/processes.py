"""The processes that train together, as torchrun or accelerate starts them; one where neither does.

Every process takes every step, but one of them, the first, writes all files and says all words. A process knows its
rank from its environment; to do anything together the processes must be connected.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from hskcache import runtime
from hskcache.difference import first_difference
from hskcache.errors import CacheError, MismatchError, SpecError
from hskcache.processes import count, is_first, rank

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

__all__ = ["agree", "connect", "count", "disconnect", "gathered", "is_first", "on_first", "pin", "rank", "wait"]

Value = TypeVar("Value")

# What those who start processes set beside WORLD_SIZE, which a shell or a container may have alone. Without the
# address torch ends in a traceback; without its rank each is the first, and waits for the others without end.
_TOLD = ("RANK", "MASTER_ADDR")


def connect(device: str) -> "torch.device":
    """Let the processes find each other; needed before anything below, and harmless twice.

    ``device``: what they compute on, ``auto``, ``cpu``, ``cuda`` or, one process alone, ``cuda:N``. Returns the one
    that this process computes on. Raises SpecError if the environment tells of several processes, but not how they find
    each other; or they were given one device.
    """
    if count() > 1 and ":" in device:
        raise SpecError(
            f"--device {device} is one device, and {count()} processes train together; give cuda, a device for each"
        )
    missing = [name for name in _TOLD if not os.environ.get(name)]
    if count() > 1 and missing:
        raise _lonely(f"nothing says how they find each other: no {' and no '.join(missing)} is set")
    # On a Mac it would take the GPU by itself.
    state = PartialState(cpu=runtime.resolve_device(device) == "cpu")
    if state.num_processes != count():
        raise _lonely(f"this one was not told that it is one of them: LOCAL_RANK is {os.environ.get('LOCAL_RANK')!r}")
    if ":" in device:
        state.device = _chosen(device)
    own: torch.device = state.device
    return own


def pin(arguments: "TrainingArguments", device: str) -> None:
    """Let the Trainer compute on one device, that of this process.

    Several are for several processes: the Trainer would scatter what cannot be scattered over them, and a batch would
    grow with the machine. ``arguments``: of the Trainer, which takes the first CUDA device of a process by itself;
    ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, as it was connected with.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if ":" in device:
        # A cached property, and the only thing that says where.
        arguments.__dict__["_setup_devices"] = PartialState().device = _chosen(device)


def _chosen(device: str) -> "torch.device":
    """One device of this machine, which CUDA computes on where nothing else is said."""
    import torch

    chosen = torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def disconnect() -> None:
    """Take leave of each other at the end of a command."""
    PartialState().destroy_process_group()


def wait() -> None:
    """Go on when all have come here."""
    PartialState().wait_for_everyone()


def on_first(work: Callable[[], Value]) -> Value:
    """Do ``work`` in the first process alone; its result, or its CacheError or OSError, is everybody's."""
    outcome: list[Any] = [_attempt(work) if is_first() else None]
    if count() > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    value: Value = outcome[0]
    return value


def gathered(value: Any) -> list[Any]:
    """Everybody's ``value``, of plain types, in the order of their ranks."""
    values: list[Any] = gather_object([value])
    return values


def agree(settings: Mapping[str, Any]) -> None:
    """Raise unless every process was given the same, such as the same copy of a cache on its own machine.

    ``settings``: as JSON values. Raises MismatchError if they differ; in every process.
    """
    if count() == 1:
        return
    first, *others = gather_object([json.loads(json.dumps(settings))])
    for number, other in enumerate(others, start=1):
        if (found := first_difference(first, other)) is not None:
            path, here, there = found
            raise MismatchError(
                f"the processes were given different runs: {path} is {here!r} for the first and {there!r} for process "
                f"{number}; give all of them the same command, and the same files on every machine"
            )


def _lonely(why: str) -> SpecError:
    return SpecError(
        f"WORLD_SIZE={count()} says that {count()} processes train together, and {why}; start them with torchrun or "
        "accelerate launch, or unset WORLD_SIZE to train in one"
    )


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (CacheError, OSError) as error:
        # The others wait for a result: an error that stays here would leave them waiting.
        return error
