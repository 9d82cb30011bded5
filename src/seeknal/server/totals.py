"""The totals of the counts of all workers, kept in the memory of the first process.

Workers send their counts over a socket that they inherit. There are no files, so a full disk, a cleaned folder or a
worker that dies cannot harm the server.
"""

from __future__ import annotations

import socket
import traceback
from array import array
from collections import defaultdict
from itertools import islice
from threading import Lock, Thread

import msgspec

from seeknal.errors import StoreError

Key = tuple[str, ...]
Counts = dict[Key, float]
"""Numbers by the name of a counter and its labels."""

_AT_ONCE = 100
"""Counts per message. Each has two names of at most 128 bytes, and every system allows messages of 2^16 bytes."""
_LONGEST = 2**16
_PATIENCE = 5.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Key, float]]).decode


class Totals:
    """The totals of this process."""

    def __init__(self) -> None:
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._changing = Lock()

    def add(self, counts: Counts) -> None:
        """Add counts to the totals, and remove them from `counts`."""
        with self._changing:
            while counts:
                key, number = counts.popitem()
                self._counts[key] += number

    def read(self) -> Counts:
        """Return the totals."""
        with self._changing:
            return dict(self._counts)


class Hub(Totals):
    """The totals of the first process, which receives the counts of its workers.

    Attributes:
        entrance: The socket that workers inherit, and send their counts to.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exit, self.entrance = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (self._exit, self.entrance):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _LONGEST)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _LONGEST)
        Thread(target=self._listen, name="totals", daemon=True).start()

    def _listen(self) -> None:
        while True:
            # A message with a file descriptor asks for the totals, over that socket; any other one has counts.
            message, files, _, _ = socket.recv_fds(self._exit, _LONGEST, 1)
            try:
                if files:
                    self._answer(files[0])
                else:
                    self.add(dict(_decode(message)))
            except Exception:  # noqa: BLE001 - the counts of other workers must still be received
                traceback.print_exc()

    def _answer(self, file: int) -> None:
        with socket.socket(fileno=file) as worker:
            worker.settimeout(_PATIENCE)
            worker.sendall(_encode(list(self.read().items())))


class SharedTotals:
    """A worker's access to the totals of the first process.

    Args:
        entrance: The hub's `entrance`.
    """

    def __init__(self, entrance: socket.socket) -> None:
        self._entrance = entrance

    def add(self, counts: Counts) -> None:
        """Add counts to the totals, and remove them from `counts`.

        Counts that the first process is too busy to take stay in `counts`, for the next call.
        """
        while counts:
            some = list(islice(counts.items(), _AT_ONCE))
            try:
                self._entrance.send(_encode(some), socket.MSG_DONTWAIT)
            except OSError:
                return
            for key, _ in some:
                del counts[key]

    def read(self) -> Counts:
        """Return the totals.

        Raises:
            StoreError: The first process does not send them.
        """
        mine, theirs = socket.socketpair()
        try:
            with mine:
                # Closed here once it was passed on, so that reading ends when the first process closes its own.
                with theirs:
                    rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs.fileno()])
                    self._entrance.sendmsg([b"?"], [rights], socket.MSG_DONTWAIT)
                mine.settimeout(_PATIENCE)
                return dict(_decode(b"".join(iter(lambda: mine.recv(2**16), b""))))
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(
                f"The first process did not return the counts of the workers: {error}. Try again."
            ) from None
