"""Origin of a figure, and the end of a device's work. Sides are timed by ``trainer.timing``, as in the package."""

import os
import platform
from typing import Any


def synchronise(device: str) -> None:
    """Wait until the device has finished what was asked of it."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: str = "cpu") -> dict[str, Any]:
    """Origin of a figure: versions, threads and device, and the load of the machine at the start."""
    import torch
    import transformers

    place = torch.device(device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }
