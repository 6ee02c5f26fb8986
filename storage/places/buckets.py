"""Requests to S3-compatible buckets: whole objects, asked again while that may help.

Where the server is and who asks is said by the environment alone, in the usual names:
AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_ALLOW_HTTP, and AWS_TIMEOUT for one request. Each process makes its client from it; nothing of
it is ever stored.

This is the one layer that repeats requests: after time-outs, broken connections, throttling and
server errors, with growing pauses of random length, until `PATIENCE` seconds have passed.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from storage.errors import NoSpaceInBucket, OutcomeUnknown, StorageUnavailable

__all__ = ["NoSpaceInBucket", "OutcomeUnknown", "StorageUnavailable"]

LOGGER = logging.getLogger("spherescore")
_T = TypeVar("_T")

PATIENCE = 120.0  # seconds in which a request is repeated
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds
LARGE = 64 << 20  # bytes; larger objects are put in parts, and appear whole all the same
NO_SPACE = (507,)
AGAIN = (408, 409, 425, 429)  # besides all that are 500 and more

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")


class _NoAnswer(StorageUnavailable):
    """It was asked again and again, and what became of it is not known."""


def get(bucket: str, key: str) -> bytes:
    """The content of an object, in parts if it is large: each has the time of a request.

    Raises:
        FileNotFoundError: If there is no such object.
    """

    def ask(store: Any) -> bytes | int:
        found = _obstore().get(store, key)
        size = int(found.meta["size"])
        return size if size > LARGE else bytes(found.bytes())

    whole = _ask(bucket, key, ask)
    if isinstance(whole, bytes):
        return whole
    starts = range(0, whole, LARGE)
    parts = (get_ranges(bucket, key, [at], [min(LARGE, whole - at)])[0] for at in starts)
    return b"".join(parts)


def get_end(bucket: str, key: str, length: int) -> tuple[bytes, int]:
    """The last bytes of an object, and its size."""

    def ask(store: Any) -> tuple[bytes, int]:
        found = _obstore().get(store, key, options={"range": {"suffix": length}})
        return bytes(found.bytes()), int(found.meta["size"])

    return _ask(bucket, key, ask)


def get_ranges(bucket: str, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """Parts of an object; neighbours in one request."""
    if not starts:
        return []

    def ask(store: Any) -> list[bytes]:
        parts = _obstore().get_ranges(store, key, starts=starts, lengths=lengths)
        return [bytes(part) for part in parts]

    return _ask(bucket, key, ask)


def size(bucket: str, key: str) -> int:
    """Raises FileNotFoundError if there is no such object."""
    return _ask(bucket, key, lambda store: int(_obstore().head(store, key)["size"]))


def put(bucket: str, key: str, content: bytes) -> None:
    """Put an object in the place of what is there."""
    large = len(content) > LARGE
    _ask(bucket, key, lambda store: _obstore().put(store, key, content, use_multipart=large))


def put_once(bucket: str, key: str, content: bytes) -> None:
    """Put an object where there is none (If-None-Match: *).

    An answer that is lost does not tell what happened: then the object is read back, and is ours
    if it has our content.

    Raises:
        FileExistsError: If another one is there; it is left as it is.
        OutcomeUnknown: If it may be there and cannot be read back.
    """
    asked = 0

    def ask(store: Any) -> None:
        nonlocal asked
        asked += 1
        # Before asking again: what was asked may have been done.
        if asked > 1 and _found(store, key) == content:
            return
        _obstore().put(store, key, content, mode="create", use_multipart=False)

    try:
        _ask(bucket, key, ask)
    except _obstore().exceptions.AlreadyExistsError:
        if asked == 1 or get(bucket, key) != content:
            raise FileExistsError(f"s3://{bucket}/{key} exists") from None
    except StorageUnavailable as error:
        if asked > 1 or isinstance(error, _NoAnswer):
            raise OutcomeUnknown(
                f"s3://{bucket}/{key} was put, the answers were lost and it cannot be read back; "
                f"nothing was deleted: run again when the storage answers ({error})"
            ) from error
        raise


def copy(bucket: str, key: str, target: str) -> None:
    """Copy an object on the server."""
    _ask(bucket, key, lambda store: _obstore().copy(store, key, target))


def delete(bucket: str, keys: Sequence[str]) -> None:
    """Delete objects; those that are not there are no mistake."""
    if keys:
        _ask(bucket, keys[0], lambda store: _obstore().delete(store, list(keys)))


def sizes(bucket: str, prefix: str) -> dict[str, int]:
    """Sizes by key of all objects below a prefix, which ends where a `/` follows."""

    def ask(store: Any) -> dict[str, int]:
        parts = _obstore().list(store, prefix or None, chunk_size=1000)
        return {str(one["path"]): int(one["size"]) for part in parts for one in part}

    return _ask(bucket, prefix, ask)


def times(bucket: str, prefix: str) -> dict[str, datetime]:
    """When the objects below a prefix were put, by key and the server's clock."""

    def ask(store: Any) -> dict[str, datetime]:
        parts = _obstore().list(store, prefix)
        return {str(one["path"]): one["last_modified"] for part in parts for one in part}

    return _ask(bucket, prefix, ask)


def level(bucket: str, prefix: str) -> tuple[list[str], list[str]]:
    """Keys of the objects right below a prefix, and prefixes of what lies deeper."""

    def ask(store: Any) -> tuple[list[str], list[str]]:
        found = _obstore().list_with_delimiter(store, prefix or None)
        return [str(one["path"]) for one in found["objects"]], list(found["common_prefixes"])

    return _ask(bucket, prefix, ask)


def _ask(bucket: str, key: str, ask: Callable[[Any], _T]) -> _T:
    """What a request gives, repeated while it fails in a way that may pass.

    Raises:
        StorageUnavailable: If it does not pass, or cannot.
    """
    store, place = _store(bucket), f"s3://{bucket}/{key}"
    end, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
    while True:
        try:
            return ask(store)
        except FileNotFoundError as error:
            _refuse_absent(bucket, key, error)
            raise FileNotFoundError(f"{place} does not exist") from None
        except _obstore().exceptions.AlreadyExistsError:
            raise
        except _obstore().exceptions.BaseError as error:
            refusal = _permanent(place, error)
            if refusal is not None:
                raise refusal from None
            wait = random.uniform(pause / 2, pause)
            if time.monotonic() + wait > end:
                raise _NoAnswer(
                    f"{place} does not answer, tried for {PATIENCE:.0f} s: {_line(error)}; what is "
                    "finished is safe, run again when the storage is there"
                ) from None
            LOGGER.debug("%s: asked again in %.1f s (%s)", place, wait, _line(error))
        time.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


def _permanent(place: str, error: Exception) -> StorageUnavailable | None:
    """What to raise if asking again cannot help."""
    known, line = _obstore().exceptions, _line(error)
    status = _STATUS.search(str(error))
    code = _CODE.search(str(error))
    if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError):
        return StorageUnavailable(
            f"{place} is forbidden ({code[1] if code else line}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and what they may do"
        )
    if status and int(status[1]) in NO_SPACE:
        return NoSpaceInBucket(f"{place}: no space left on the server ({line})")
    if code and code[1] == "NoSuchBucket":
        return _no_bucket(place)
    if "builder error" in line:
        return StorageUnavailable(
            f"{place}: {line}; if AWS_ENDPOINT_URL begins with http:// on purpose, set "
            "AWS_ALLOW_HTTP=true"
        )
    if status is None or (int(status[1]) >= 500 and int(status[1]) != 501):
        return None
    if int(status[1]) in AGAIN or (code and code[1] == "RequestTimeout"):
        return None
    return StorageUnavailable(f"{place} is refused: {line}{f' ({code[1]})' if code else ''}")


def _refuse_absent(bucket: str, key: str, error: Exception) -> None:
    """Raise if it is the bucket that is not there, which answers without content do not say."""
    if "NoSuchBucket" in str(error):
        raise _no_bucket(f"s3://{bucket}") from None
    if bucket not in _PRESENT:
        if "NoSuchKey" not in str(error):
            level(bucket, key)
        _PRESENT.add(bucket)


_PRESENT: set[str] = set()  # buckets that answered


def _no_bucket(place: str) -> StorageUnavailable:
    return StorageUnavailable(f"{place}: there is no such bucket; make it, or change run.root")


def _found(store: Any, key: str) -> bytes | None:
    try:
        return bytes(_obstore().get(store, key).bytes())
    except FileNotFoundError:
        return None


def _line(error: BaseException) -> str:
    """The first line of obstore's message, without the query of an address."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
    return re.sub(r"\?\S+", "", re.sub(r"<\?xml.*|<Error>.*", "", text)).strip().rstrip(":")


def _obstore() -> Any:
    import obstore

    return obstore


def _store(bucket: str) -> Any:
    named = ("AWS_TIMEOUT", "AWS_CONNECT_TIMEOUT", "AWS_ALLOW_HTTP", "AWS_ENDPOINT_URL")
    return _client(bucket, *(os.environ.get(name) for name in named))


@lru_cache(maxsize=16)
def _client(
    bucket: str, timeout: str | None, connect: str | None, http: str | None, endpoint: str | None
) -> Any:
    if importlib.util.find_spec("obstore") is None:
        raise StorageUnavailable(
            f"s3://{bucket} needs the package obstore: pip install 'spherescore[remote]'"
        )
    from obstore.store import S3Store

    options: Any = {
        "timeout": timeout or "60s",
        "connect_timeout": connect or "5s",
        "allow_http": str(http).lower() in ("1", "true", "yes", "on"),
    }
    address: Any = {"endpoint": endpoint} if endpoint else {}
    never: Any = {"max_retries": 0}
    try:
        return S3Store(bucket, client_options=options, retry_config=never, **address)
    except Exception as error:
        raise StorageUnavailable(f"s3://{bucket} cannot be asked: {_line(error)}") from None
