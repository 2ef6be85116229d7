"""Processes of their own for tests that kill one or need several; they start from one that has imported torch."""

import gc
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from servers import free_port

_PRELOAD = ["trainer.run.fit", "trainer.loading", "hskcache.text", "torch.utils.tensorboard", "sklearn.metrics"]
_PRELOAD += ["transformers.models.bert.modeling_bert", "transformers.models.auto.modeling_auto"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOAD)


def run(target: Callable[..., None], *args: Any, timeout_s: float = 120) -> int:
    """Call ``target`` in a process of its own and return its exit code; a signal is negative."""
    return _finish([_start(target, args, {})], timeout_s)[0]


def together(target: Callable[..., None], *args: Any, count: int = 2, timeout_s: float = 120) -> list[int]:
    """Call ``target`` in ``count`` processes that find each other as under torchrun; returns their exit codes."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    common |= {"LOCAL_WORLD_SIZE": str(count)}
    processes = [_start(target, args, common | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(count)]
    return _finish(processes, timeout_s)


def _start(target: Callable[..., None], args: tuple[Any, ...], environment: dict[str, str]) -> Any:
    # The process that they start from has kept the environment of the test that came first.
    process = _context.Process(target=_child, args=(target, args, {**os.environ, **environment}))
    process.start()
    return process


def _child(target: Callable[..., None], args: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()  # as in the tests' own process
    target(*args)


def _finish(processes: list[Any], timeout_s: float) -> list[int]:
    codes = []
    for process in processes:
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
        codes.append(process.exitcode)
        process.close()
    return codes
