"""Requests to an object store.

`obstore` and `deltalake` are built on the same Rust crate, so they read the same options from the environment. An answer that says that
something failed becomes an `OSError`, as of a local file, whose text has neither an option nor the query of a URL.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seeknal.errors import DefinitionError, StoreError
from seeknal.system.extras import how_to_install
from seeknal.system.forks import PerProcess, refuse_fork
from seeknal.system.object_url import EXTRAS
from seeknal.system.stored_paths import plain

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, RetryConfig
    from obstore.store import ObjectStore as Client

T = TypeVar("T")
B = TypeVar("B", bytes, memoryview)
_PATIENCE = timedelta(seconds=60)
"""How long a request is repeated while the store does not answer, or answers that it is overloaded."""
_RETRIES = 1000
"""More than there can be in that time."""
AS_OPTIONS = {
    "max_retries": f"{_RETRIES}",
    "retry_timeout": f"{_PATIENCE.seconds}s",
    "backoff_config.init_backoff": "100ms",
    "backoff_config.max_backoff": "2s",
    "backoff_config.base": "2",
}
"""The same for deltalake."""
_READS = 3
"""How often a read is tried whose answer breaks off."""
_PIECE = 2**23
_ENTRIES = 4096
"""How many log entries are kept in memory."""
_ENTRY = re.compile(r"/_delta_log/\d{20}\.json$")


@dataclass(frozen=True)
class ObjectStatus:
    """What a store tells of an object; see `Status`."""

    st_size: int
    st_mtime_ns: int
    st_ino: int = 0


class ObjectClient:
    """The requests to an object store: of a bucket or container, from a prefix on.

    Args:
        url: Its URL, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = PerProcess(self._open)
        self._entry = lru_cache(_ENTRIES)(self._get)

    def _open(self) -> Client:
        refuse_fork("an object store", "A local folder works either way.")
        try:
            from obstore.store import from_url
        except ImportError:
            extra = EXTRAS[self.url.partition("://")[0]]
            raise DefinitionError(f"Tables in {self.url} need the extra {extra!r}. {how_to_install(extra)}") from None
        try:
            return from_url(self.url, retry_config=_retries())
        except Exception as error:  # noqa: BLE001 - of options, any kind; they are not to be shown
            raise StoreError(f"{self.url} cannot be opened: {plain(error)}") from None

    @contextmanager
    def _asking(self, key: str) -> Iterator[Client]:
        """Yield the client, and raise the errors of a request as `OSError`."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield self._client()
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}/{key} does not exist") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermissionError(f"{self.url}/{key}: {plain(error)}") from None
        except AlreadyExistsError:
            raise FileExistsError(f"{self.url}/{key} exists") from None
        except BaseError as error:
            raise OSError(f"{self.url}/{key}: {plain(error)}") from None

    def get(self, key: str) -> bytes:
        """Return an object; a log entry, which never changes, from memory if it was read before.

        Raises:
            OSError: There is none, or the store does not answer.
        """
        return self._entry(key) if _ENTRY.search(key) else self._get(key)

    def _get(self, key: str) -> bytes:
        import obstore

        def read() -> bytes:
            with self._asking(key) as client:
                found = obstore.get(client, key)
                content = bytes(found.bytes())
                return _whole(content, found.meta["size"], key)

        return _again(read)

    def tail(self, key: str, size: int) -> tuple[bytes, int]:
        """Return the last `size` bytes of an object, or all of a smaller one, and its size."""
        import obstore
        from obstore.exceptions import NotSupportedError

        def read() -> tuple[bytes, int]:
            with self._asking(key) as client:
                try:
                    found = obstore.get(client, key, options={"range": {"suffix": size}})
                    content, every = bytes(found.bytes()), found.meta["size"]
                except NotSupportedError:  # Azure counts from the start only
                    every = obstore.head(client, key)["size"]
                    start = max(0, every - size)
                    content = bytes(obstore.get_range(client, key, start=start, end=every)) if every else b""
                return _whole(content, min(size, every), key), every

        return _again(read)

    def ranges(self, key: str, wanted: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return parts of an object, each from its first byte to its last, exclusive."""
        import obstore

        def read() -> list[memoryview]:
            with self._asking(key) as client:
                starts, ends = zip(*wanted, strict=True)
                found = obstore.get_ranges(client, key, starts=starts, ends=ends, coalesce=0)
                # Views, since the parts are written to a file and need no copy.
                parts = [memoryview(part) for part in found]
                return [_whole(part, end - start, key) for part, (start, end) in zip(parts, wanted, strict=True)]

        return _again(read) if wanted else []

    def pieces(self, key: str, size: int) -> Iterator[bytes]:
        """Yield an object of a size, some megabytes at a time."""
        for start in range(0, size, _PIECE):
            for part in self.ranges(key, [(start, min(size, start + _PIECE))]):
                yield bytes(part)

    def put(self, key: str, content: bytes | Path, *, is_new: bool = False) -> None:
        """Write an object, or a local file as an object, which appears whole or not at all.

        Raises:
            FileExistsError: With `is_new`, there is such an object.
            OSError: It may or may not have been written.
        """
        import obstore

        with self._asking(key) as client:
            if is_new:
                obstore.put(client, key, content, mode="create", use_multipart=False)
            else:
                obstore.put(client, key, content)

    def status(self, key: str) -> ObjectStatus:
        """Return size and date of an object.

        Raises:
            OSError: There is none, or the store does not answer.
        """
        import obstore

        with self._asking(key) as client:
            return _status(obstore.head(client, key))

    def children(self, key: str) -> dict[str, ObjectStatus | None]:
        """Return the names in a folder: of objects with their status, of folders with None."""
        import obstore

        with self._asking(key) as client:
            found = obstore.list_with_delimiter(client, prefix=key)
            names: dict[str, ObjectStatus | None] = {one.rsplit("/", 1)[-1]: None for one in found["common_prefixes"]}
            return names | {one["path"].rsplit("/", 1)[-1]: _status(one) for one in found["objects"]}

    def under(self, key: str) -> dict[str, ObjectStatus]:
        """Return the keys of all objects in a folder and in its folders, with their status."""
        import obstore

        with self._asking(key) as client:
            return {one["path"]: _status(one) for part in obstore.list(client, prefix=key) for one in part}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that do not exist are left alone."""
        import obstore

        if names := list(keys):
            with self._asking(names[0]) as client, suppress(FileNotFoundError):
                obstore.delete(client, names)


def _retries() -> RetryConfig:
    backoff: BackoffConfig = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2}
    return {"max_retries": _RETRIES, "retry_timeout": _PATIENCE, "backoff": backoff}


def _status(meta: Any) -> ObjectStatus:
    tag = zlib.crc32((meta.get("e_tag") or "").encode())  # the same in every process, unlike `hash`
    return ObjectStatus(meta["size"], int(meta["last_modified"].timestamp() * 1e9), tag)


def _whole(content: B, size: int, key: str) -> B:
    if len(content) != size:
        raise OSError(f"{key}: {len(content)} of {size} bytes were received")
    return content


def _again(read: Callable[[], T]) -> T:
    """Read once more if an answer breaks off; the client repeats only requests that were not answered at all."""
    end = time.monotonic() + _PATIENCE.total_seconds()
    for _ in range(_READS - 1):
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() > end:
                raise
    return read()
