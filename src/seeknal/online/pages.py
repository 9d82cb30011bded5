"""Lock-free reads of an LMDB file, for a process that is not allowed to write the lock file.

LMDB preserves the pages of a reader that has an entry in the lock file. The pages of any other reader are overwritten a few
commits later. So each page is copied first, and the copy is used only if its snapshot is still the newest one afterwards: until
the next commit, a writer touches no page of the newest snapshot. LMDB itself cannot read in this way: it trusts the content of
a page, so an overwritten page gives wrong rows or crashes the process.

The layout is that of LMDB 0.9: two meta pages, written alternately, and below the newer one a B+ tree of sorted nodes.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from seeknal.errors import StoreError

_META = struct.Struct("=16xII16xI36xQ40xQQQ")
_MAGIC, _LAYOUT = 0xBEEFC0DE, 1
_TRANSACTION = 144
"""The offset of the transaction number in a meta page."""
_NUMBER = struct.Struct("=Q")
_HEAD = struct.Struct("=Q2xHH2x")
"""The header of a page: its number, its kind, and the end of its list of nodes."""
_NODE = struct.Struct("=IHH")
"""The header of a node: the size of the value and flags, or both together the child page; the size of the key, which follows."""
_BRANCH, _LEAF, _ELSEWHERE = 1, 2, 1
_EMPTY = 2**64 - 1
"""The root of a tree without pages."""
_CACHED = 4096


class Moved(Exception):  # noqa: N818 - a state, not a fault
    """A newer snapshot was committed, so a writer may have overwritten pages of this one."""


class Meta(NamedTuple):
    """A meta page, which describes one snapshot: the roots of its two trees, its last page, and its transaction."""

    magic: int
    layout: int
    page_size: int
    free: int
    root: int
    last: int
    transaction: int


class PageFile:
    """The data file of an LMDB environment, open for reading.

    Raises:
        StoreError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise StoreError(f"The online store {path.parent} cannot be opened: {error.strerror}.") from error
        self.page_size = 0  # not known yet, so `_metas` reads the first meta page twice
        try:
            first = self._metas()[0]
        except StoreError:
            self.close()
            raise
        self.page_size = first.page_size
        self.is_known = (first.magic, first.layout) == (_MAGIC, _LAYOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes of the file from the offset `start` on.

        Raises:
            StoreError: The file cannot be read, or it ends before these bytes do.
        """
        try:
            text = os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise StoreError(f"The online store {self.path.parent} could not be read: {error.strerror}.") from error
        if len(text) < size:
            raise self.cut_short(start + size)
        return text

    def cut_short(self, size: int) -> StoreError:
        """Return the error for a file that should have at least `size` bytes."""
        return StoreError(
            f"The online store {self.path.parent} is truncated: {self.path.name} has {self.size:,} bytes, and should have "
            f"at least {size:,}. To restore its rows, stop all programs that use the store, remove that folder, and run for "
            "each online table: seeknal refresh TABLE."
        )

    @property
    def size(self) -> int:
        """The size of the file, in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def transaction(self) -> int:
        """Return the number of the newest committed transaction."""
        places = (_TRANSACTION, self.page_size + _TRANSACTION)
        return max(int(_NUMBER.unpack(self.read(place, _NUMBER.size))[0]) for place in places)

    def newest(self) -> Meta:
        """Return the newest snapshot. The meta pages are read until two reads agree, so that none is used half written."""
        found = self._metas()
        while (again := self._metas()) != found:
            found = again
        return max(found, key=lambda meta: meta.transaction)

    def _metas(self) -> list[Meta]:
        return [Meta(*_META.unpack(self.read(place, _META.size))) for place in (0, self.page_size)]


class Tree:
    """One of the trees of a snapshot. A read returns what its transaction committed, or raises `Moved`.

    Args:
        file: The file.
        meta: The snapshot.
        root: The number of the tree's root page.
    """

    def __init__(self, file: PageFile, meta: Meta, root: int) -> None:
        self.transaction = meta.transaction
        self._file = file
        self._root = root
        self._pages: dict[int, _Page] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if there is none.

        Raises:
            Moved: The snapshot is no longer the newest, and the read needs a page that is not cached.
        """
        number, pages = self._root, self._pages
        while number != _EMPTY:
            page = pages.get(number) or self._page(number)
            keys = page.keys
            if page.is_leaf:
                place = bisect_left(keys, key)
                return self._value(page, place) if place < len(keys) and keys[place] == key else None
            # LMDB gives the first node of a branch page no key: it covers all keys below the second one's.
            low, high, _ = page.nodes[bisect_right(keys, key, 1) - 1]
            number = low | high << 32
        return None

    def keys(self, first: bytes) -> Iterator[bytes]:
        """Yield the keys in order, beginning at the first one that is not less than `first`."""
        return (page.keys[place] for page, place in self._nodes(self._root, first))

    def values(self) -> Iterator[bytes]:
        """Yield all values, in the order of their keys."""
        return (self._value(page, place) for page, place in self._nodes(self._root, b""))

    def _nodes(self, number: int, first: bytes) -> Iterator[tuple[_Page, int]]:
        if number == _EMPTY:
            return
        page = self._page(number)
        if page.is_leaf:
            yield from ((page, place) for place in range(bisect_left(page.keys, first), len(page.keys)))
            return
        for low, high, _ in page.nodes[bisect_right(page.keys, first, 1) - 1 :]:
            yield from self._nodes(low | high << 32, first)

    def _page(self, number: int) -> _Page:
        page = self._pages.get(number)
        if page is None:
            size = self._file.page_size
            text = self._read(number * size, size)
            try:
                page = _Page.of(text, number)
            except (struct.error, ValueError):
                place = self._file.path.parent
                raise StoreError(
                    f"The online store {place} is corrupt: page {number} is not a page of its tree. To restore its rows, stop all "
                    "programs that use the store, remove that folder, and run for each online table: seeknal refresh TABLE."
                ) from None
            if len(self._pages) >= _CACHED:  # a scan of everything: it needs no page twice
                self._pages.clear()
            self._pages[number] = page
        return page

    def _value(self, page: _Page, place: int) -> bytes:
        size, flags, start = page.nodes[place]
        if not flags & _ELSEWHERE:
            return page.text[start : start + size]
        # A large value has pages of its own; the node has the number of the first one.
        (number,) = _NUMBER.unpack_from(page.text, start)
        return self._read(number * self._file.page_size + _HEAD.size, size)

    def _read(self, start: int, size: int) -> bytes:
        text = self._file.read(start, size)
        # Checked after the copy: once a newer snapshot is committed, a writer may have overwritten the page.
        if self._file.transaction() != self.transaction:
            raise Moved
        return text


class _Page(NamedTuple):
    """A page of a tree: its bytes, the keys of its nodes, and per node the two fields before its key and the end of the key."""

    text: bytes
    is_leaf: bool
    keys: list[bytes]
    nodes: list[tuple[int, int, int]]

    @classmethod
    def of(cls, text: bytes, number: int) -> _Page:
        """Parse the bytes of the page with a number.

        Raises:
            ValueError, struct.error: The bytes are not those of a tree page with that number.
        """
        own, kind, end = _HEAD.unpack_from(text)
        if own != number or not kind & (_BRANCH | _LEAF):
            raise ValueError(own, kind)
        starts = struct.unpack_from(f"={(end - _HEAD.size) // 2}H", text, _HEAD.size)
        nodes = [
            (low, high, start + _NODE.size + size)
            for start in starts
            for low, high, size in [_NODE.unpack_from(text, start)]
        ]
        keys = [text[start + _NODE.size : end] for start, (_, _, end) in zip(starts, nodes, strict=True)]
        return cls(text, bool(kind & _LEAF), keys, nodes)


def check_whole(path: Path) -> None:
    """Check that a file has all pages of its trees, because LMDB crashes the process when it reads a missing one.

    A file may end before its last page if all pages beyond its end are free, that is, were freed before they were ever written.

    Raises:
        StoreError: Pages are missing.
    """
    with PageFile(path) as file:
        lacking: set[int] | None = None
        while file.is_known and lacking is None:
            with suppress(Moved):  # then check the newer snapshot
                lacking = _lacking(file)
        if lacking:
            raise file.cut_short((max(lacking) + 1) * file.page_size)


def _lacking(file: PageFile) -> set[int]:
    """Return the numbers of the pages beyond the end of a file that are not free.

    Raises:
        Moved: A newer snapshot was committed meanwhile.
    """
    meta = file.newest()
    lacking = set(range(file.size // file.page_size, meta.last + 1))
    for text in Tree(file, meta, meta.free).values() if lacking else ():
        # A value of the free tree is a list of pages: their count, then their numbers.
        lacking.difference_update(memoryview(text).cast("Q")[1:])
    return lacking
