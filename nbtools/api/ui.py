"""Opening MLflow's own pages."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from nbtools.api.lab import LabCommand
from nbtools.api.opening import address_of, open_for
from nbtools.errors import UsageError

_HOST = "127.0.0.1"
_FIRST_PORT, _PORTS = 5000, 100


@dataclass(frozen=True, slots=True)
class Pages:
    """MLflow's pages.

    Parameters
    ----------
    url
        Where they are, or will be.
    command
        What serves them; None if a server does already.
    """

    url: str
    command: LabCommand | None


def ui(*, port: int | None = None, project: Path | str | None = None) -> Pages:
    """Return where MLflow's pages on the project's runs are, and how to serve them, to this machine only.

    Parameters
    ----------
    port
        Default: the first from 5000 on that nobody listens at.

    Raises
    ------
    UsageError
        If nothing has been tracked yet, or the port is taken.
    """
    with open_for(project) as opened:
        store, home = address_of(opened), opened.project
    if store.uri.startswith(("http://", "https://")):
        return Pages(store.shown, None)
    if store.database is not None and not store.database.exists():
        raise UsageError.of("nothing has been tracked yet", fix="nbtools run")
    chosen = _free_port(port)
    # Not in the words of the command: others can read those, and the address may hold a password.
    environment = {
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    if store.artifacts:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = store.artifacts
    words = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        _HOST,
        "--port",
        str(chosen),
        "--workers",
        "1",
    ]
    return Pages(f"http://{_HOST}:{chosen}", LabCommand(tuple(words), environment, home.root))


def _free_port(wanted: int | None) -> int:
    for port in [wanted] if wanted else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    where = f"port {wanted}" if wanted else f"every port from {_FIRST_PORT} on"
    raise UsageError.of(f"{where} is taken", where="--port", fix="name a free one: nbtools ui --port 8080")
