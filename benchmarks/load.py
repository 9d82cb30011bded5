"""Load on an HTTP server with `wrk`, and starting servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_SCRIPT = """
math.randomseed(%d)
local token = %s
function request()
  local keys = {}
  for i = 1, %d do keys[i] = '{"person_id": ' .. math.random(0, %d) .. '}' end
  local headers = {["Content-Type"] = "application/json"}
  if token then headers["Authorization"] = "Bearer " .. token end
  return wrk.format("POST", nil, headers, '{"keys": [' .. table.concat(keys, ",") .. ']}')
end
"""


@dataclass(frozen=True)
class Load:
    """The result of a load: requests per second, the 50th and 99th percentiles in milliseconds, and responses other than 2xx."""

    rate: float
    p50: float
    p99: float
    failed: int


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, keys: list[int], token: str | None = None) -> bytes:
    """Request the features of some people; return the body of the response."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    body = json.dumps({"keys": [{"person_id": key} for key in keys]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as response:  # noqa: S310 - http
        return bytes(response.read())


def wait_for(url: str, token: str | None = None) -> None:
    """Wait until a server responds, and check its response.

    Raises:
        TimeoutError: It did not respond within half a minute.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            row = json.loads(ask(url, [12], token))["rows"][0]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
            continue
        assert row["person_id"] == 12, row  # noqa: PLR2004, S101 - a wrong answer is not worth timing
        assert len(row) == 11, row  # noqa: PLR2004, S101
        return
    raise TimeoutError(url)


def wrk(
    url: str,
    keys: int,
    rows: int,
    seconds: int,
    connections: int = 8,
    token: str | None = None,
    script: str | None = None,
) -> Load:
    """Load a server with requests for a number of random people each. Other protocols than Seeknal's take their own script."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ask.lua"
        file.write_text((script or _SCRIPT) % (keys, f'"{token}"' if token else "nil", keys, rows - 1))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(file), url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spans = {name: float(value) * _UNITS[unit] for name, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", text)}
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    return Load(float(rate[1]) if rate else 0.0, spans["50"], spans["99"], failed)
