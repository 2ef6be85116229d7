"""Answers of servers and their libraries: tried again where a fault may pass, otherwise turned into one line of ours.

Every library behind fsspec has errors of its own, so they are told apart by what they mean: there is no such file, we
may not, the way there does not exist, or something that may be over in a moment. Only the last is tried again, with
waits that grow and are spread at random, so that many readers do not return at once.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hskcache.depot.waiting import WAITING
from hskcache.errors import CacheError, SpecError

RETRY_S = 60.0
"""Seconds for which a server that does not answer is tried again, in all."""

_AGAIN = "nothing is lost: run the same command again when the server is back"
_FINAL = (FileExistsError, IsADirectoryError, MemoryError, TypeError, ValueError)
# Of the disk of a file:// URL, or of the server's, which no wait mends.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_REFUSAL = re.compile(r"[Aa]uthenti|Credential|BadHostKey|PasswordRequired|Unauthorized|Forbidden")
_PACKAGE = re.compile(r"\b(adlfs|aiohttp|dropboxdrivefs|gcsfs|huggingface_hub|ossfs|paramiko|s3fs|smbprotocol)\b")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket",
    "hf": "HF_TOKEN",
    "sftp": "the user in the URL, and a password there or a key in FSSPEC_SFTP_KEY_FILENAME",
    "http": "a user and a password in the URL",
    "https": "a user and a password in the URL, or the whole URL with its query",
}
_PASSING = (408, 409, 412, 423, 425, 429)

Result = TypeVar("Result")

# Where nobody has set logging up, each attempt would be printed.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class OutOfReachError(CacheError):
    """Fault that may be over in a moment; its message is what the user reads if it is not."""


def retry_seconds(given: float | None = None) -> float:
    """Seconds for which to try again: what is given, else the environment's HSKCACHE_RETRY_S, else a minute.

    Raises:
        SpecError: the environment holds no number of seconds.
    """
    if given is not None:
        return given
    text = os.environ.get("HSKCACHE_RETRY_S", str(RETRY_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SpecError(f"HSKCACHE_RETRY_S={text!r} is not a number of seconds; give one such as 60, or unset it")
    return seconds


def patiently(work: Callable[[], Result], seconds: float) -> Result:
    """Do what may be out of reach for a moment, again and again until it succeeds or the time is over.

    That it is out of reach is told at once, and how long it will be tried again.

    Args:
        work: raises :class:`OutOfReachError` where another attempt may succeed; everything else passes at once.
        seconds: for which new attempts begin after the first has failed.

    Raises:
        OutOfReachError: that of the last attempt.
    """
    import stamina

    try:
        return work()
    except OutOfReachError as error:
        if not seconds:
            raise
        reason = str(error).removesuffix(f"; {_AGAIN}")
    # Counted from the first failure: a server may have been silent for longer than that before.
    longest = min(10.0, seconds / 6)
    first, spread = min(0.5, longest / 4), min(1.0, longest / 4)
    with WAITING.another_attempt(reason, seconds):
        time.sleep(first + random.SystemRandom().uniform(0, spread))
        for attempt in stamina.retry_context(
            on=OutOfReachError, attempts=None, timeout=seconds, wait_initial=first, wait_max=longest, wait_jitter=spread
        ):
            with attempt:
                return work()
    raise AssertionError("an attempt returns or raises")


@contextmanager
def reaching(url: str, redact: Callable[[str], str]) -> Iterator[None]:
    """Turn what a library says of a file at a URL into errors of ours.

    Args:
        url: of the file, as people may read it.
        redact: takes out of a library's words what nobody may read.

    Raises:
        FileNotFoundError: there is no such file.
        OutOfReachError: the server does not answer, or not as it should.
        CacheError: anything else, which another attempt does not mend.
    """
    try:
        yield
    except CacheError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        # Without what it was raised from: a library's words may hold what nobody may read.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
    except Exception as error:  # noqa: BLE001  (each library has errors of its own, without a common base)
        raise _told(error, url, redact(_words(error))) from None


def status(error: BaseException) -> int | None:
    """The HTTP status behind an error, whichever library it is of."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        names = [(error, "status"), (response, "status_code"), (error, "code")]
        code = next((getattr(one, name) for one, name in names if hasattr(one, name)), None)
    return code if isinstance(code, int) and 100 <= code < 600 else None


def _told(error: Exception, url: str, said: str) -> CacheError:
    if isinstance(error, ImportError):
        package = _PACKAGE.search(f"{said} {error.__cause__}")
        install = f"; pip install {package[0]}" if package else ""
        return CacheError(f"{url} needs a package that is not installed: {said}{install}")
    if isinstance(error, NotImplementedError):
        return CacheError(
            f"{url} cannot be written: its server only gives; push to s3://, gs://, sftp://, hf:// or file://"
        )
    if type(error).__name__ == "OfflineModeIsEnabled":
        return CacheError(f"{url} is on the hub, which HF_HUB_OFFLINE=1 says not to ask; unset it, or give a folder")
    if _is_refusal(error):
        given = _CREDENTIALS.get(url.partition("://")[0], "the credentials that its library takes")
        return CacheError(f"{url} is refused to you ({said}); give {given}")
    if _is_final(error):
        return CacheError(f"{url} cannot be read or written ({said}); mend that and run the same command again")
    return OutOfReachError(f"{url} is out of reach ({said}); {_AGAIN}")


def _words(error: BaseException) -> str:
    """One line of an error's words, or its name where it has none."""
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        # Libraries call it by the names of their own functions.
        return os.strerror(errno.ECONNREFUSED)
    strerror = error.strerror if isinstance(error, OSError) and isinstance(error.strerror, str) else None
    return " ".join((strerror or str(error) or type(error).__name__).split())[:300]


def _is_refusal(error: BaseException) -> bool:
    """True if the server knows us, or does not, and says no."""
    named = any(_REFUSAL.search(kind.__name__) for kind in type(error).__mro__)
    return isinstance(error, PermissionError) or named or status(error) in {401, 403, 407}


def _is_final(error: BaseException) -> bool:
    """True if the same request would get the same answer."""
    number = status(error)
    said_no = number is not None and 400 <= number < 500 and number not in _PASSING
    # Of a certificate that is not trusted; not every library has a class for it.
    is_untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
    return isinstance(error, _FINAL) or said_no or is_untrusted or getattr(error, "errno", None) in _FULL
