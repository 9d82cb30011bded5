"""Folders that appear whole or never, whatever happens to the process that makes them, and folders to work in.

They are made under another name beside their place, and renamed at the end. What was begun by a process that
was killed is removed by the next that makes a folder at the same place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from io import FileIO
from pathlib import Path
from weakref import finalize

from seeknal.errors import DefinitionError, StoreError

_LOCK, _WORK = "_making.lock", "work"
_CHUNK = 2**20
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP}
"""How a disk says that it does not bring folders, only files, to the disk when asked."""


def named(place: str | Path) -> Path:
    """Return the file or folder that a user names, from the root.

    Raises:
        DefinitionError: Nothing can have that name, or the user is not allowed to look there.
    """
    try:
        path = Path(place).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise DefinitionError(f"{str(place)!r} names no file or folder: {reason}. Name another.") from None
    return path


def make(folder: Path) -> None:
    """Make a folder, and those that it is in, each for the group of the one around it; see `share`.

    Raises:
        StoreError: This user may not.
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
    """Let the group of a folder use what was just made in it as it may use the folder, whatever the umask of this process says.

    So a home that is shared by a group, by `chmod g+rws`, stays so. A file of another group is left alone.
    """
    with suppress(OSError):
        made, folder = path.stat(), path.parent.stat()
        rights = folder.st_mode & (stat.S_IRWXG if stat.S_ISDIR(made.st_mode) else stat.S_IRGRP | stat.S_IWGRP)
        if made.st_gid == folder.st_gid and rights & ~made.st_mode:
            path.chmod(stat.S_IMODE(made.st_mode) | rights)


def remove(path: Path) -> None:
    """Remove a file, if possible: the error for which it is removed is the one to raise."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def may_write(path: Path) -> bool:
    """Tell whether this user may write a file or folder, or make it where it is not there."""
    while not os.path.exists(path):  # noqa: PTH110 - also where this user may not look
        path = path.parent
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def check_writable(folder: Path) -> None:
    """Refuse to write where this user may not.

    Raises:
        StoreError: It may not.
    """
    if not may_write(folder):
        raise read_only(folder)


def refused(path: Path, error: OSError) -> StoreError:
    """Return what to raise when a file or folder could not be written."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return read_only(path)
    return StoreError(f"{path} could not be written: {error.strerror}.")


def read_only(path: Path) -> StoreError:
    """Return what to raise when this user may not write a file or folder."""
    return StoreError(
        f"{path} is read-only for this user. Run this as a user, or in a group, that may write it; a volume has to be "
        "mounted writable."
    )


def scratch_of(home: Path) -> Path:
    """Return the folder for what does not fit in memory: in the home, or where this user may not write, a private one in TMPDIR."""
    own = home / "scratch"
    if may_write(own):
        return own
    import tempfile

    with suppress(OSError):
        private = Path(tempfile.gettempdir()) / f"seeknal-{os.getuid()}"
        private.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        if private.stat().st_uid == os.getuid():
            return private
    return own


@contextmanager
def appearing(place: Path) -> Iterator[Path]:
    """Give a folder to fill, which is at its place, and on the disk, when this ends well, and gone if not.

    Raises:
        StoreError: Something is at the place by then.
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
    """A folder to work in, which is gone when this is, or when the process ends; those of killed processes go before it is made.

    Two processes can have one number, each in a container of its own, so a name with that number keeps nothing apart.

    Args:
        parent: Where it is made.
    """

    def __init__(self, parent: Path) -> None:
        make(parent)
        sweep(parent)
        self.folder, lock = _begin(parent / _WORK, [])
        self.end = finalize(self, _end_work, self.folder, lock, os.getpid())


def _end_work(folder: Path, lock: FileIO, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()


@contextmanager
def passing(parent: Path) -> Iterator[Path]:
    """Give a folder to work in, which is gone afterwards, also where a generator has it that nobody comes back to close.

    Args:
        parent: Where it is made.
    """
    work = Workplace(parent)
    try:
        yield work.folder
    finally:
        work.end()


@contextmanager
def kept_in(scratch: Path) -> Iterator[None]:
    """Say which disk it is that is full or cannot be written to.

    Raises:
        StoreError: It is.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"What does not fit in memory cannot be kept in {scratch}: {error}") from error


def copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file, with its permissions but always to be read and written by its owner; give its size and SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old, target.open("xb") as new:
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            size += new.write(chunk)
    same_access(source, target)
    return size, digest.hexdigest()


def same_access(source: Path, target: Path) -> None:
    """Let those read a file or folder who may read another, as far as the disk knows of permissions."""
    with suppress(PermissionError):
        target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR)


def abandoned(parent: Path) -> list[Path]:
    """List the folders to work in that processes left which are no more."""
    found = []
    for part, lock in _unlocked(parent / _WORK):
        lock.close()
        found.append(part)
    return found


def sweep(parent: Path) -> None:
    """Remove the folders to work in that processes left which are no more."""
    _sweep(parent / _WORK)


def _begin(place: Path, made: list[Path]) -> tuple[Path, FileIO]:
    """Make a folder for the work, and lock it; another one if somebody took it for left behind meanwhile.

    Args:
        place: The place that it is for.
        made: Is told of each folder before it is made.
    """
    while True:
        part = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}.part"
        made.append(part)
        part.mkdir()
        lock = _try_lock(part, unknown=True)
        if lock is not None and part.exists():
            return part, lock


def _sweep(place: Path) -> None:
    """Remove what was begun for a place by processes that are no more."""
    for part, lock in _unlocked(place):
        with lock:
            shutil.rmtree(part, ignore_errors=True)


def _unlocked(place: Path) -> Iterator[tuple[Path, FileIO]]:
    """Give what was begun for a place by processes that are no more, locked."""
    for part in place.parent.glob(f".{escape(place.name)}.{'[0-9a-f]' * 8}.part"):
        if (lock := _try_lock(part, unknown=False)) is not None:
            yield part, lock


def _try_lock(part: Path, *, unknown: bool) -> FileIO | None:
    """Lock a folder of work, until the file that is returned is closed; None if somebody has it locked, or it is gone.

    Args:
        part: The folder.
        unknown: Whether to go on where the disk knows no locks.
    """
    lock = None
    try:
        lock = FileIO(os.open(part / _LOCK, os.O_RDWR | os.O_CREAT, 0o600))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        pass
    except PermissionError:  # it is another user's
        if unknown:
            raise
    except OSError:
        if lock is None:
            raise
        if unknown:
            return lock
    else:
        return lock
    if lock is not None:
        lock.close()
    return None


def put(place: Path, content: bytes) -> None:
    """Write a file that is at its place, and on the disk, whole or not at all; one writer at a time in a folder."""
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
    """Bring a folder, and all that is in it, to the disk."""
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
