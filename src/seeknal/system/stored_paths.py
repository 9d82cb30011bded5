"""The files of tables, wherever they lie: what `seeknal.offline` needs of a path, and of the storage behind it.

A table in a local folder is addressed by a `pathlib.Path`, as it is. A table in an object store is addressed by a path of that store,
which has those methods of `pathlib.Path` that `StoredPath` lists.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, Self

from seeknal.system import folders


class Status(Protocol):
    """What is known of a file without reading it. No two contents of a path have the same inode and time of change."""

    @property
    def st_size(self) -> int:
        """Its size, in bytes."""

    @property
    def st_ino(self) -> int:
        """Its inode."""

    @property
    def st_mtime_ns(self) -> int:
        """The time of its last change, in nanoseconds since 1970, by the clock of the storage."""


class StoredPath(Protocol):
    """The path of a file or folder of a table. Its methods are those of `pathlib.Path`; `str()` names it in messages."""

    @property
    def name(self) -> str:
        """The last part."""

    @property
    def parent(self) -> StoredPath:
        """The path of the folder that it lies in."""

    def __hash__(self) -> int:
        """Paths of the same file are equal."""

    def __truediv__(self, name: str, /) -> Self:
        """Return the path of a name in this folder."""

    def exists(self) -> bool:
        """Return whether there is such a file, or a file in such a folder."""

    def read_bytes(self) -> bytes:
        """Return the content of the file."""

    def iterdir(self) -> Iterator[Self]:
        """Yield the paths of what lies in the folder."""

    def stat(self) -> Status:
        """Return what is known of the file."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""


class TableAccess(Protocol):
    """How the tables of a storage are opened, and kept from others while they change."""

    @property
    def is_shared(self) -> bool:
        """Whether processes of other machines may use the tables too, which no lock file keeps out."""

    def label(self, root: StoredPath) -> str:
        """Return project and name of the group whose table is in a folder, as "project/name"."""

    def lock_file(self, path: StoredPath) -> Path:
        """Return the local file that the processes of this machine lock for a path."""

    def address(self, root: StoredPath) -> tuple[str | Path, dict[str, str] | None]:
        """Return the address and the options with which deltalake opens the table in a folder."""

    def may_write(self, root: StoredPath) -> bool:
        """Return whether this user may write to a table, as far as it can be told without writing."""


class FileAccess(Protocol):
    """How the files of a storage are read and written, beyond the methods of `StoredPath`."""

    def put_file(self, path: StoredPath, content: bytes) -> None:
        """Write a file, which appears whole or not at all."""

    def pieces(self, path: StoredPath) -> Iterator[bytes]:
        """Yield the content of a file, some megabytes at a time."""

    def prefetch(self, paths: Iterable[StoredPath]) -> None:
        """Read log entries, which never change, all at once, where reading one after the other would take longer."""

    def missing(self, folder: StoredPath, names: Collection[str]) -> set[str]:
        """Return which of the files named do not exist in a folder."""

    def writing(self, path: StoredPath) -> AbstractContextManager[Path]:
        """Yield the local path at which to write a new data file. It is stored when the block ends without an error."""

    def readable(self, paths: Sequence[StoredPath], columns: Sequence[str] | None) -> list[str]:
        """Return local paths from which DuckDB and Arrow can read data files, for as long as a path of their table is referenced.

        Args:
            paths: The data files, all of one table.
            columns: The columns that may be read; None: all.
        """


class Backing(TableAccess, FileAccess, Protocol):
    """The storage that some paths lie in."""


_PIECE = 2**23


class _LocalBacking:
    """Local folders; see `Backing`."""

    is_shared = False

    def label(self, root: StoredPath) -> str:
        return f"{root.parent.name}/{root.name}"

    def lock_file(self, path: StoredPath) -> Path:
        return _local(path)

    def address(self, root: StoredPath) -> tuple[str | Path, dict[str, str] | None]:
        return _local(root), None

    def may_write(self, root: StoredPath) -> bool:
        return folders.may_write(_local(root))

    def put_file(self, path: StoredPath, content: bytes) -> None:
        folders.make(_local(path).parent)
        folders.put(_local(path), content)

    def pieces(self, path: StoredPath) -> Iterator[bytes]:
        with _local(path).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def prefetch(self, paths: Iterable[StoredPath]) -> None:
        pass

    def missing(self, folder: StoredPath, names: Collection[str]) -> set[str]:
        return {name for name in names if not (folder / name).exists()}

    @contextmanager
    def writing(self, path: StoredPath) -> Iterator[Path]:
        yield _local(path)

    def readable(self, paths: Sequence[StoredPath], _columns: Sequence[str] | None) -> list[str]:
        return [str(path) for path in paths]


_LOCAL = _LocalBacking()


def backing_of(path: StoredPath) -> Backing:
    """Return the storage that a path lies in."""
    return _LOCAL if isinstance(path, Path) else path.backing  # type: ignore[attr-defined]


def is_shared(path: StoredPath) -> bool:
    """Return whether processes of other machines may use a table too, which no lock file keeps out."""
    return backing_of(path).is_shared


def lock_file(path: StoredPath) -> Path:
    """Return the local file that the processes of this machine lock for a path."""
    return backing_of(path).lock_file(path)


def share(path: StoredPath) -> None:
    """Share a new local file with the group of its folder; see `seeknal.system.folders.share`."""
    if isinstance(path, Path):
        folders.share(path)


def check_writable(root: StoredPath) -> None:
    """Check that this user may write to a table, as far as it can be told without writing.

    Raises:
        StoreError: They may not.
    """
    if not backing_of(root).may_write(root):
        raise folders.read_only(_local(root))


def readable(paths: Sequence[StoredPath], columns: Sequence[str] | None = None) -> list[str]:
    """Return local paths from which data files of one table can be read; see `FileAccess.readable`."""
    return backing_of(paths[0]).readable(paths, columns) if paths else []


def plain(error: Exception) -> str:
    """Return what an error of an object store says, without the options and queries of URLs in it, and without its debug output."""
    text = str(error).partition("\n\nDebug source")[0]
    code = "".join(f" ({found[1]}: {found[2]})" for found in _CODE.finditer(text))
    text = _CREDENTIALS.sub("//", _QUERY.sub("", text.partition("<?xml")[0]))
    return " ".join(text.split()).rstrip(":. ") + code


_CODE = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>")
_QUERY = re.compile(r"\?[^\s\"')]*")
_CREDENTIALS = re.compile(r"//[^/\s@]*@")


def _local(path: StoredPath) -> Path:
    assert isinstance(path, Path)  # noqa: S101 - `backing_of` has looked
    return path
