"""Transactions of a database: each call of the registry is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

D = TypeVar("D", bound="Database")
P = ParamSpec("P")
T = TypeVar("T")


class Database(ABC):
    """A database that any number of threads and processes may use at once."""

    @abstractmethod
    def take(self, step: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Run a step in a transaction, which commits all of it or nothing.

        Args:
            step: Called with the connection; its result is returned. It may be called again if the database was lost before the commit.
            writes: Whether it writes. Then the transaction holds the write lock from its beginning, else it sees one state.

        Raises:
            StoreError: The database cannot be used.
        """


def reading(method: Callable[Concatenate[D, Connection, P], T]) -> Callable[Concatenate[D, P], T]:
    """Run a method in a transaction that sees one state of the database; the caller passes no connection."""
    return _in_transaction(method, writes=False)


def writing(method: Callable[Concatenate[D, Connection, P], T]) -> Callable[Concatenate[D, P], T]:
    """Run a method in a transaction that holds the write lock from its beginning; the caller passes no connection."""
    return _in_transaction(method, writes=True)


def _in_transaction(
    method: Callable[Concatenate[D, Connection, P], T], *, writes: bool
) -> Callable[Concatenate[D, P], T]:
    @wraps(method)
    def run(database: D, /, *arguments: P.args, **options: P.kwargs) -> T:
        return database.take(lambda db: method(database, db, *arguments, **options), writes=writes)

    return run
