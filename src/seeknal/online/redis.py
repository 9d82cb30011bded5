"""The online store on Redis or Valkey, a single server or a cluster.

All keys of a space begin with `seeknal:PROJECT:{GROUP/VERSION}`. The part in braces decides on which node of a cluster they
are, so a space is on one node and can change atomically. The key of exactly that name is the head: it holds the generation of the
rows, then the state. A read fetches the head together with the rows, and so knows that they belong together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

from seeknal.errors import DefinitionError, StoreError
from seeknal.online.protocol import Entries, Found, LoadAttempt
from seeknal.system.extras import how_to_install
from seeknal.system.forks import PerProcess
from seeknal.system.retry import Conflict
from seeknal.system.urls import shown

_AT_ONCE = 5_000
_PATIENCE = 5.0
_GENERATION = 16
_LOST_AFTER = 600_000
"""Milliseconds without a heartbeat after which a load counts as killed.

Each space has a sorted set of generations. A score is the time of the load's last heartbeat, 0 for a discarded generation, and
-1 for one whose rows are being removed.
"""

# KEYS: head, count, rows. ARGV: expected head, new head, then value and expiry (milliseconds) of each row; "" for none.
_CHANGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local count = tonumber(redis.call('GET', KEYS[2]) or '0')
for i = 3, #KEYS do
    local value, expiry = ARGV[2 * i - 3], ARGV[2 * i - 2]
    local there = redis.call('EXISTS', KEYS[i])
    if value == '' then
        redis.call('DEL', KEYS[i])
        count = count - there
    else
        if expiry == '' then
            redis.call('SET', KEYS[i], value)
        else
            redis.call('SET', KEYS[i], value, 'PXAT', expiry)
        end
        count = count + 1 - there
    end
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], count)
return count
"""

# KEYS: head, count, generations. ARGV: expected head or "", new head, new generation, previous generation or "", count.
_FINISH = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return -1 end
if tonumber(redis.call('ZSCORE', KEYS[3], ARGV[3]) or '-1') < 0 then return -1 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[5])
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[3], 0, ARGV[4]) end
return 1
"""

# KEYS: head, count, generations.
_DROP = """
redis.call('DEL', KEYS[1], KEYS[2])
for _, generation in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    redis.call('ZADD', KEYS[3], 0, generation)
end
return 1
"""

# KEYS: generations. ARGV: a generation. The heartbeat of a load, unless its rows are being removed or are gone.
_LIVE = """
local score, now = redis.call('ZSCORE', KEYS[1], ARGV[1]), redis.call('TIME')
if score and tonumber(score) >= 0 then
    redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
end
"""

# KEYS: head, generations. ARGV: a generation. From now on its load cannot put it online. Returns 0 if it is online already.
_LOSE = """
if string.sub(redis.call('GET', KEYS[1]) or '', 1, #ARGV[1]) == ARGV[1] then return 0 end
redis.call('ZADD', KEYS[2], -1, ARGV[1])
return 1
"""

_clients: dict[str, RedisStore] = {}


class RedisStore:
    """An online store with its spaces in Redis or Valkey.

    Args:
        url: A URL such as redis://host:6379/0 or rediss://host. The URL of one node of a cluster stands for the cluster.
    """

    most_changes = 10_000
    forgets = True
    waits = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._generations: dict[str, bytes] = {}
        self._connected = PerProcess(self._connect)

    @classmethod
    def of(cls, url: str) -> RedisStore:
        """Return the store of this process for a URL, so that its connections are shared."""
        return _clients.setdefault(url, cls(url))

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return RedisStore.of, (self._url,)

    @property
    def _client(self) -> Any:
        return self._connected()

    def _connect(self) -> Any:
        redis = _library()
        options: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 3}
        backoff = redis.backoff.ExponentialBackoff(cap=0.5, base=0.05)
        patience = redis.retry.Retry(backoff, 3, (redis.ConnectionError, ConnectionError))
        try:
            client = redis.Redis.from_url(self._url, **options, retry=patience)
            if client.info("cluster").get("cluster_enabled"):
                return redis.RedisCluster.from_url(self._url, **options, retry=patience)
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"{shown(self._url)} is not a valid Redis URL: {error}") from None
        return client

    def get(self, space: str, keys: Sequence[bytes]) -> Found:
        """See `OnlineStore.get`."""
        with self._calling("read"):
            head, end = _head(space), time.monotonic() + _PATIENCE
            # With the generation of the last read, one request is enough. If it is outdated, the head in the response shows that.
            generation = self._generations.get(space) or self._generation(space)
            while True:
                prefix = _rows(space, generation)
                parts = [
                    self._client.mget([head, *(prefix + key for key in keys[i : i + _AT_ONCE])])
                    for i in range(0, len(keys) or 1, _AT_ONCE)
                ]
                # Each batch includes the head. If the heads differ, a load came in between, and the rows do not belong together.
                now = parts[0][0]
                if now and now[:_GENERATION] == generation and all(part[0] == now for part in parts):
                    rows = parts[0][1:] if len(parts) == 1 else [row for part in parts for row in part[1:]]
                    return now[_GENERATION:], rows
                if len(parts) > 1 and time.monotonic() > end:
                    raise StoreError(
                        f"The rows of {space} in {shown(self._url)} changed during each attempt to read {len(keys):,} of them within "
                        f"{_PATIENCE:g} seconds. Request at most {_AT_ONCE:,} at once, which are read in one step."
                    )
                generation = self._generation(space)

    def get_all(self, spaces: tuple[str, ...], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """See `OnlineStore.get_all`."""
        return [self.get(space, some) for space, some in zip(spaces, keys, strict=True)]

    def _generation(self, space: str) -> bytes:
        now = self._client.get(_head(space))
        if now is None:
            self._generations.pop(space, None)
            raise KeyError(space)
        self._generations[space] = now[:_GENERATION]
        return bytes(now[:_GENERATION])

    def keys(self, space: str) -> Iterator[bytes]:
        """See `OnlineStore.keys`."""
        with self._calling("read"):
            prefix = _rows(space, self._generation(space))
            for name in self._names(space, prefix):
                yield name[len(prefix) :]

    def change(self, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
        """See `OnlineStore.change`."""
        with self._calling("written, and is as it was"):
            try:
                generation = self._generation(space)
            except KeyError:
                raise Conflict(f"{space} was dropped.") from None
            prefix = _rows(space, generation)
            values = [
                text
                for value, expiry in zip(entries.values, entries.expires or repeat(None), strict=False)
                for text in (value or b"", b"" if expiry is None else _milliseconds(expiry))
            ]
            names = [_head(space), _count(space), *(prefix + key for key in entries.keys)]
            count = self._client.eval(_CHANGE, len(names), *names, generation + expected, generation + state, *values)
        if count < 0:
            raise Conflict(f"Another load of {space} committed first.")
        return int(count)

    def replace(self, space: str, attempts: Iterable[LoadAttempt]) -> int:
        """See `OnlineStore.replace`."""
        with self._calling("written, and is as it was"):
            generation = os.urandom(_GENERATION // 2).hex().encode()
            self._sweep(space)
            self._client.zadd(_generations(space), {generation: self._clock(space)})
            count, done = 0, False
            try:
                for number, attempt in enumerate(attempts):
                    for part in attempt.parts:
                        count += self._put(space, generation, part, fresh=number == 0)
                    if done := self._finish(space, generation, attempt, count):
                        break
            finally:
                if not done:
                    self._give_up(space, generation)
            self._sweep(space)
        if not done:
            raise Conflict(f"Another load of {space} committed first during each attempt.")
        return count

    def _put(self, space: str, generation: bytes, part: Entries, *, fresh: bool) -> int:
        """Put and remove rows, and return the change of the row count. A fresh generation has no rows to count before."""
        prefix = _rows(space, generation)
        names = [prefix + key for key in part.keys]
        before = 0 if fresh or not names else int(self._client.exists(*names))
        self._client.eval(_LIVE, 1, _generations(space), generation)
        if part.expires is None and None not in part.values:
            for i in range(0, len(names), _AT_ONCE):
                some = slice(i, i + _AT_ONCE)
                self._client.mset(dict(zip(names[some], part.values[some], strict=True)))
        else:
            with self._client.pipeline(transaction=False) as pipe:
                for name, value, expiry in zip(names, part.values, part.expires or repeat(None), strict=False):
                    until = () if expiry is None else ("PXAT", _milliseconds(expiry))
                    pipe.execute_command(*(("DEL", name) if value is None else ("SET", name, value, *until)))
                pipe.execute()
        return sum(value is not None for value in part.values) - before

    def _finish(self, space: str, generation: bytes, attempt: LoadAttempt, count: int) -> bool:
        """Point the space to the new generation, unless another load committed first; return whether it was done."""
        before = self._client.get(_head(space)) or b""
        if (before[_GENERATION:] if before else None) != attempt.expected:
            return False
        names = [_head(space), _count(space), _generations(space)]
        texts = [before, generation + attempt.state, generation, before[:_GENERATION], str(count)]
        return int(self._client.eval(_FINISH, len(names), *names, *texts)) == 1

    def _give_up(self, space: str, generation: bytes) -> None:
        """Discard a generation, so that this call or the next load removes its rows, unless it is online after all."""
        self._client.zadd(_generations(space), {generation: 0})
        self._sweep(space)

    def drop(self, space: str) -> None:
        """See `OnlineStore.drop`."""
        with self._calling("written"):
            names = [_head(space), _count(space), _generations(space)]
            self._client.eval(_DROP, len(names), *names)
            self._generations.pop(space, None)
            self._sweep(space)

    def _sweep(self, space: str) -> None:
        """Remove the rows of generations that are not online and that no running load writes."""
        now = (self._client.get(_head(space)) or b"")[:_GENERATION]
        lost = self._client.zrangebyscore(_generations(space), -1, self._clock(space) - _LOST_AFTER)
        for generation in set(lost) - {now}:
            if not self._client.eval(_LOSE, 2, _head(space), _generations(space), generation):
                continue  # its load has put it online in the meantime
            names = self._names(space, _rows(space, generation))
            while some := [name for name, _ in zip(names, range(_AT_ONCE), strict=False)]:
                self._client.unlink(*some)
            self._client.zrem(_generations(space), generation)

    def _names(self, space: str, prefix: bytes) -> Iterator[bytes]:
        node = {}  # in a cluster, scan only the node with the space
        if hasattr(self._client, "get_node_from_key"):
            node = {"target_nodes": self._client.get_node_from_key(_head(space))}
        return iter(self._client.scan_iter(match=prefix + b"*", count=1000, **node))

    def _clock(self, space: str) -> int:
        """Return the server's time in milliseconds, so that the clocks of the loading machines do not matter."""
        time = self._client.eval("return redis.call('TIME')", 1, _head(space))
        return int(time[0]) * 1000 + int(time[1]) // 1000

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        redis = _library()
        try:
            yield
        except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            raise StoreError(f"The online store {shown(self._url)} could not be {what}: {error}") from error


def _library() -> Any:
    try:
        import redis
        import redis.backoff
        import redis.retry
    except ImportError:
        raise DefinitionError(f"An online store on Redis needs the package redis. {how_to_install('redis')}") from None
    return redis


def _head(space: str) -> bytes:
    project, rest = space.split("/", 1)
    return f"seeknal:{project}:{{{rest}}}".encode()


def _count(space: str) -> bytes:
    return _head(space) + b":count"


def _generations(space: str) -> bytes:
    return _head(space) + b":generations"


def _rows(space: str, generation: bytes) -> bytes:
    return _head(space) + b":" + generation + b":"


def _milliseconds(microseconds: int) -> bytes:
    """Return an expiry in milliseconds, rounded up. Redis refuses times before 1970, so they become 1, which has passed too."""
    return str(max(1, -(-microseconds // 1000))).encode()
