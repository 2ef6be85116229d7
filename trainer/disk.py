"""What a disk that is full or broken says, in one line, whichever library hears it."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hskcache.errors import CacheError

# Of tokenizers, which raises Exception itself, and of torch's archives, which raise RuntimeError.
_DISK = re.compile(r"\(os error [0-9]+\)|inline_container|PytorchStreamWriter")


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turn what the disk says into one line.

    Args:
        out: folder of the run.

    Raises:
        CacheError: a file cannot be written or read.
    """
    try:
        yield
    except CacheError:
        raise
    except Exception as error:
        # A reader of the progress that went away is not the disk.
        is_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
        if is_pipe or not (isinstance(error, OSError | SafetensorError) or _DISK.search(str(error))):
            raise
        raise CacheError(
            f"cannot go on in {out}: {_reason(error)}; mend that, as by freeing space, and run the same command again, "
            "which goes on from here"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        # An entry for each file of a folder: source, target, and what was said.
        return str(error.args[0][0][-1])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) if not isinstance(error, RuntimeError) else f"a checkpoint cannot be written ({error})"
