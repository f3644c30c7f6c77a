"""Where MLflow keeps a project's runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from nbtools.errors import UsageError
from nbtools.pipeline.spec import Tracking

_DATABASES = ("postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks", "databricks-uc", *_DATABASES)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)(?P<options>\?.*)?")
#: A password may hold a slash or an @, so everything up to the last @ goes; a path (:///) has no user.
_USER = re.compile(r"(?<=://)(?!/)\S*@")
_OPTION = re.compile(r"(?i)(password|passwd|pwd|token|secret|key)=[^&\s]*")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """An MLflow tracking store.

    Parameters
    ----------
    uri
        As MLflow takes it; it may hold credentials and is never shown.
    experiment
        Name of the experiment.
    artifacts
        Where a new experiment keeps artifacts; empty to leave that to the server.
    database
        File of an SQLite store; None for all others.
    """

    uri: str
    experiment: str
    artifacts: str = ""
    database: Path | None = None

    @property
    def server(self) -> str:
        """The address of a store that others may share, without credentials; empty for an SQLite file."""
        return "" if self.database else self.shown

    @property
    def shown(self) -> str:
        """The address for people, without credentials."""
        return without_credentials(self.uri)


def resolve(root: Path, tracking: Tracking, project: str, environ: Mapping[str, str]) -> StoreAddress:
    """Return the store of a project: MLFLOW_TRACKING_URI, else ``tracking.uri``, else SQLite in ``.nbtools``.

    Raises
    ------
    UsageError
        If the address is none that MLflow 3 takes.
    """
    given = environ.get("MLFLOW_TRACKING_URI", "")
    uri = given or tracking.uri
    experiment = environ.get("MLFLOW_EXPERIMENT_NAME", "") or tracking.experiment or project
    state = root / ".nbtools"
    if not uri:
        return sqlite_address(state / "mlflow.db", "", experiment)
    where = "MLFLOW_TRACKING_URI" if given else "tracking.uri"
    if match := _SQLITE.fullmatch(uri):
        return sqlite_address(root / unquote(match["path"]), match["options"] or "", experiment)
    scheme = uri.split("://", 1)[0].split("+", 1)[0].lower() if "://" in uri else uri.lower()
    if scheme not in _SERVERS:
        message = f"MLflow cannot keep runs at {without_credentials(uri)!r}"
        fix = "use a server (http://host:5000) or SQLite (sqlite:///mlflow.db); MLflow 3 refuses folders"
        raise UsageError.of(message, where=where, fix=fix)
    # A database that is reached without a server would have them in whatever folder the first run is started in.
    beside = artifacts_beside(state / "mlflow.db") if scheme in _DATABASES else ""
    return StoreAddress(uri, experiment, beside)


def artifacts_beside(database: Path) -> str:
    """Return where the artifacts of an SQLite store are kept, as MLflow takes it: percent signs encoded."""
    return str(database.parent / "artifacts").replace("%", "%25")


def without_credentials(uri: str) -> str:
    """Return an address that may be shown.

    >>> without_credentials("postgresql://me:secret@host/db")
    'postgresql://host/db'
    """
    return _USER.sub("", _OPTION.sub(r"\1=…", uri))


def sqlite_address(database: Path, options: str = "", experiment: str = "") -> StoreAddress:
    """Return the address of an SQLite store in the file ``database``."""
    # SQLAlchemy decodes the path, and ends it at a question mark.
    encoded = str(database).replace("%", "%25").replace("?", "%3F")
    return StoreAddress(f"sqlite:///{encoded}{options}", experiment, artifacts_beside(database), database)
