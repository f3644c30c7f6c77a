"""A real PostgreSQL, and a real MLflow server on it, for as long as tests need them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.projects import wait_until


def _program(name: str) -> str:
    """Return a program of PostgreSQL's; Debian has most of them in a folder that is not on the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name) or next(map(str, places), None)
    if not found:
        pytest.skip(f"there is no {name}: install the package postgresql")
    return found


def _as_its_user(words: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else list(words)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the address of a server that listens at a private port and socket."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder, data = Path(name), Path(name) / "data"
        user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        make = [_program("initdb"), "-D", str(data), "-U", user, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(_as_its_user(make), check=True, capture_output=True, cwd=folder)
        port = free_port()
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
        with subprocess.Popen(
            _as_its_user([_program("postgres"), "-D", str(data), *options]),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as server:
            try:
                wait_until(lambda: _answers(port, user))
                yield f"postgresql://{user}:s3cret-pass@127.0.0.1:{port}"
            finally:
                server.terminate()
                server.wait(30)


def with_database(server: str, name: str) -> str:
    """Return the address of a new database of the server."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{server}/{name}"


def _answers(port: int, user: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=port, user=user, dbname="postgres").close()
        return True
    return False


@contextmanager
def mlflow_server(store: str, artifacts: Path) -> Iterator[str]:
    """Yield the address of an MLflow server that keeps runs in the database ``store``."""
    port = free_port()
    words = ["server", "--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words, *where],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            wait_until(lambda: _is_healthy(f"http://127.0.0.1:{port}"), 120)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def _is_healthy(url: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"{url}/health", timeout=5).status == 200)
    return False
