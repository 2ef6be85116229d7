"""The libraries underneath: which device they compute on, and how much they say."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hskcache import processes
from hskcache.errors import CacheError, SpecError
from hskcache.versions import version_of

if TYPE_CHECKING:
    import torch


def require_teacher_extra() -> None:
    """Raise CacheError if torch or transformers is not installed, before a long traceback does."""
    from importlib.util import find_spec

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise CacheError(f"{package} is not installed; install the extra: pip install 'hskcache[teacher]'")


def check_device(name: str) -> None:
    """Raise SpecError unless ``name`` is the form of a device: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``."""
    kind, _, number = name.partition(":")
    if name not in {"auto", "mps"} and (kind not in {"cpu", "cuda"} or (":" in name and not number.isdecimal())):
        raise SpecError(f"--device {name!r} is not a device; give auto, cpu, cuda, cuda:N or mps")


def resolve_device(name: str) -> str:
    """``cpu``, ``mps``, ``cuda`` or ``cuda:N`` for the value of ``--device``; ``auto`` is CUDA where there is one.

    Raises SpecError if it is none of these, or this machine has no such device.
    """
    check_device(name)
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise SpecError("--device mps: torch finds no GPU of Apple's here; give cpu or auto")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SpecError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; give cpu or auto")
    return name


def own_device(name: str) -> str:
    """The device of this process: several of one machine have its CUDA devices in turn.

    ``name``: the value of ``--device``, of which ``auto`` and ``cuda`` leave open which. Returns the same, or
    ``cuda:N`` where several processes were started and there is one to choose.
    """
    if name not in {"auto", "cuda"} or processes.count() == 1:
        return name
    import torch

    num_devices = torch.cuda.device_count()
    return f"cuda:{processes.local_rank() % num_devices}" if num_devices else name


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' words below errors and their loading bars: ours say what matters."""
    import logging

    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    verbosity, hub_verbosity, with_bars = (
        transformers_logging.get_verbosity(),
        hub_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for category in (UserWarning, FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if with_bars:
            transformers_logging.enable_progress_bar()


def environment(device: "torch.device") -> dict[str, str]:
    """Versions of packages and the hardware that compute on a device; told to readers, never digested."""
    import platform

    import torch

    packages = ("hskcache", "torch", "transformers", "tokenizers", "numcodecs", "numpy")
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {name: version_of(name) for name in packages} | {"device": f"{device.type} {hardware}"}
