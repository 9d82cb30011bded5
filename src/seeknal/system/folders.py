"""Folders that appear atomically, temporary folders, and the permissions of both.

A folder is filled under a temporary name beside its final path and renamed into place at the end, so it appears whole
or not at all, even if the process is killed. The next process that creates a folder at the same path removes what a
killed process left behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from io import FileIO
from pathlib import Path
from weakref import finalize

from seeknal.errors import DefinitionError, StoreError

_LOCK, _WORK = "_making.lock", "work"
_MAKING = 0.1
"""How many seconds its maker may need to lock a temporary folder."""
_CHUNK = 2**20
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP}
"""Error numbers of fsync on filesystems that can sync files but not folders."""


def named(place: str | Path) -> Path:
    """Return the absolute path of a file or folder that a user named; it need not exist.

    Raises:
        DefinitionError: No file can have that path, it is not UTF-8, or the user may not look there.
    """
    try:
        path = Path(place).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
        str(path).encode()  # the registry, Delta Lake and Arrow keep paths as UTF-8
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        shown = str(place) if isinstance(place, Path) else place
        raise DefinitionError(f"{shown!r} cannot be the path of a file or folder: {reason}. Choose another.") from None
    return path


def make(folder: Path) -> None:
    """Create a folder and its missing parents, each shared with the group of its parent folder; see `share`.

    Raises:
        StoreError: A folder cannot be created, because this user may not write there or because of another OS error.
    """
    if folder.is_dir():
        return
    make(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(folder, error) from error
    share(folder)


def share(path: Path) -> None:
    """Grant the group the same rights to a new file or folder as to its parent folder, whatever this process's umask.

    A home that a group shares by `chmod g+rws` thus stays shared. A file whose group differs from its folder's is left
    alone, and files never become executable.
    """
    with suppress(OSError):
        made, folder = path.stat(), path.parent.stat()
        rights = folder.st_mode & (stat.S_IRWXG if stat.S_ISDIR(made.st_mode) else stat.S_IRGRP | stat.S_IWGRP)
        if made.st_gid == folder.st_gid and rights & ~made.st_mode:
            path.chmod(stat.S_IMODE(made.st_mode) | rights)


def remove(path: Path) -> None:
    """Remove a file if possible. A failure is ignored, since the caller already raises the error that led here."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_all(folder: Path) -> None:
    """Remove a folder with all in it, as far as possible."""
    shutil.rmtree(folder, ignore_errors=True)


def may_write(path: Path) -> bool:
    """Return whether this user may write a file or folder, or create it if it does not exist."""
    while not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where this user may not look
        path = path.parent
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def check_writable(folder: Path) -> None:
    """Check that this user may write to a folder.

    Raises:
        StoreError: The folder is read-only for this user.
    """
    if not may_write(folder):
        raise read_only(folder)


def refused(path: Path, error: OSError) -> StoreError:
    """Return the error to raise when the system refused to write a file or folder."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return read_only(path)
    return StoreError(f"{path} could not be written: {error.strerror}.")


def read_only(path: Path) -> StoreError:
    """Return the error to raise when a file or folder is read-only for this user."""
    return StoreError(
        f"{path} is read-only for this user. Run this as a user, or in a group, that may write it; a volume has to be "
        "mounted writable."
    )


def scratch_of(home: Path) -> Path:
    """Return the folder for data that does not fit in memory.

    It is in the home, or, where this user may not write there, a private folder of the user in TMPDIR. If that cannot
    be used either, the folder in the home is returned all the same.
    """
    own = home / "scratch"
    return own if may_write(own) else private_scratch() or own


def private_scratch() -> Path | None:
    """Return a private folder of the user for temporary data; None if there is no place for one.

    In an executor of Spark, it lies on the disks that are meant for such data, in a folder that Spark removes in the end.
    """
    import tempfile

    parent = os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or tempfile.gettempdir()
    with suppress(OSError):
        private = Path(parent) / f"seeknal-{os.getuid()}"
        private.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        if private.stat().st_uid == os.getuid():
            return private
    return None


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """Yield a folder to fill. On success it is synced to disk and renamed to `place`, on failure it is removed.

    Raises:
        StoreError: The folder cannot be renamed, because something else is at `place` by then.
    """
    _sweep(place)
    made: list[Path] = []
    try:
        part, lock = _begin(place, made)
        with lock:
            yield part
            _sync(part)
            _put_in_place(part, place)
    except BaseException:
        for part in made:
            shutil.rmtree(part, ignore_errors=True)
        raise


class Workplace:
    """A temporary folder that is removed when this object is garbage-collected or the process ends.

    Folders left behind by killed processes are removed first. Folders are told apart by random names and locks, not by
    process ids: processes in two containers can have the same id.

    Args:
        parent: Folder in which it is created.
    """

    def __init__(self, parent: Path) -> None:
        make(parent)
        sweep(parent)
        self.folder, lock = _begin(parent / _WORK, [])
        try:
            self.end = finalize(self, _end_work, self.folder, lock, os.getpid())
        except BaseException:  # a Ctrl-C, whose traceback would keep the lock
            lock.close()
            raise


def _end_work(folder: Path, lock: FileIO, maker: int) -> None:
    if os.getpid() == maker:  # a forked process runs the finalizer too, and must leave its parent's folder alone
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder that is removed afterwards.

    It is removed even if the caller is a generator that is abandoned without being closed; see `Workplace`.

    Args:
        parent: Folder in which it is created.
    """
    work = Workplace(parent)
    try:
        yield work.folder
    finally:
        work.end()


@contextmanager
def kept_in(scratch: Path) -> Iterator[None]:
    """Raise an OSError as a StoreError that names the folder whose disk is full or read-only.

    Raises:
        StoreError: An OSError was raised.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"What does not fit in memory cannot be kept in {scratch}: {error}") from error


def copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file to a path that does not exist yet, and return its size in bytes and its SHA-256.

    The copy has the permissions of the original, and its owner can always read and write it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old, target.open("xb") as new:
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            size += new.write(chunk)
    same_access(source, target)
    return size, digest.hexdigest()


def same_access(source: Path, target: Path) -> None:
    """Copy the permissions of `source` to `target`, plus read and write for the owner.

    A filesystem that refuses to set permissions is left alone.
    """
    with suppress(PermissionError):
        target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR)


def abandoned(parent: Path) -> list[Path]:
    """Return the temporary folders that ended processes left behind."""
    found = _free(parent)
    if any(time.time() - part.stat().st_mtime < _MAKING for part in found if part.exists()):
        time.sleep(_MAKING)  # one that was just created is not locked yet, or its maker has given it up
        found = [part for part in _free(parent) if part in found]
    return found


def _free(parent: Path) -> list[Path]:
    found = []
    for part, lock in _unlocked(parent / _WORK):
        lock.close()
        found.append(part)
    return found


def sweep(parent: Path) -> None:
    """Remove the temporary folders that ended processes left behind."""
    _sweep(parent / _WORK)


def _begin(place: Path, made: list[Path]) -> tuple[Path, FileIO]:
    """Create and lock a temporary folder.

    Between the two steps, another process may take the unlocked folder for abandoned, and lock or remove it. In that
    case, another name is tried.

    Args:
        place: Path beside which the folder is created.
        made: Receives each folder before it is created, so that the caller can remove it whatever happens.
    """
    while True:
        part = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}.part"
        made.append(part)
        part.mkdir()
        if (lock := _try_lock(part, unknown=True)) is not None:
            try:
                if part.exists():
                    return part, lock
            except BaseException:  # a Ctrl-C, whose traceback would keep the lock
                lock.close()
                raise
            lock.close()
        shutil.rmtree(part, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove the temporary folders for a place that ended processes left behind."""
    for part, lock in _unlocked(place):
        with lock:
            shutil.rmtree(part, ignore_errors=True)


def _unlocked(place: Path) -> Iterator[tuple[Path, FileIO]]:
    """Yield the temporary folders for a place that ended processes left behind, each with the lock now held on it."""
    for part in place.parent.glob(f".{escape(place.name)}.{'[0-9a-f]' * 8}.part"):
        if (lock := _try_lock(part, unknown=False)) is not None:
            yield part, lock


def _try_lock(part: Path, *, unknown: bool) -> FileIO | None:
    """Lock a temporary folder until the returned file is closed.

    Return None if another process has it locked, or it is gone.

    Args:
        part: The folder.
        unknown: Whether this process owns the folder, and so goes on without a lock where the filesystem has none.
            Otherwise such a folder counts as locked, and so does one of another user.
    """
    try:
        lock = FileIO(os.open(part / _LOCK, os.O_RDWR | os.O_CREAT, 0o600))
    except FileNotFoundError:
        return None
    except PermissionError:  # another user's folder
        if unknown:
            raise
        return None
    is_ours = False
    try:
        is_ours = _is_locked(lock, unknown)
    finally:  # a Ctrl-C too, whose traceback would keep the lock
        if not is_ours:
            lock.close()
    return lock if is_ours else None


def _is_locked(lock: FileIO, unknown: bool) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the filesystem has no locks
        return unknown
    return True


def put(place: Path, content: bytes) -> None:
    """Write a file atomically: it is synced to disk, then renamed into place.

    The temporary name is fixed, so the caller must allow one writer at a time per folder.
    """
    part = place.with_name(".put.part")
    try:
        part.write_bytes(content)
        _sync_one(part)
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_one(place.parent)


def _sync(folder: Path) -> None:
    """Sync a folder and everything in it to disk, contents before folders."""
    for here, _, names in os.walk(folder, topdown=False):
        for path in [*(Path(here, name) for name in names), Path(here)]:
            _sync_one(path)


def _sync_one(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(file)


def _put_in_place(part: Path, place: Path) -> None:
    try:
        part.rename(place)
    except OSError as error:
        raise StoreError(f"{place} cannot be put in its place, and is as it was: {error.strerror}.") from error
    (place / _LOCK).unlink(missing_ok=True)
    _sync_one(place.parent)
