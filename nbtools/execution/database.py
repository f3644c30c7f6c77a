"""What a project remembers: completion records, the event journal, and memos, in one SQLite file.

The journal and the records are append-only. Everything here is local and can be thrown away:
without it the next run starts afresh.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from nbtools.errors import OperationError
from nbtools.execution.digest import Memo
from nbtools.execution.events import Event, RunDelivered, RunFinished, RunStarted, decode, encode
from nbtools.pipeline.fingerprint import from_record, to_record
from nbtools.pipeline.plan import Completion

_SCHEMA_VERSION = 1
_OF_RUNS = (RunStarted, RunFinished, RunDelivered)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS completion (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, fingerprint TEXT NOT NULL,
    attempt TEXT NOT NULL UNIQUE, at REAL NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS completion_fingerprint ON completion (fingerprint);
CREATE TABLE IF NOT EXISTS current (stage TEXT PRIMARY KEY, completion INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_run ON event (run);
CREATE INDEX IF NOT EXISTS event_kind ON event (kind);
CREATE TABLE IF NOT EXISTS memo (
    path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Database:
    """The open file; safe to use from several threads.

    Parameters
    ----------
    path
        The SQLite file. Reading a project that has none finds nothing and creates nothing.
    writable
        Whether to create it if missing.

    Raises
    ------
    OperationError
        If it cannot be opened, is damaged, or comes from a newer nbtools.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._lock = threading.RLock()
        self._path = path
        self.writable = writable
        self._durable: bool | None = None
        with self._explained():
            self._connection = _connect(path, writable)
            self._prepare()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # Completion records

    def commit(self, completion: Completion, attempt: str, *, in_use: bool = True) -> None:
        """Append a completion record: from this moment on the stage is done.

        Parameters
        ----------
        in_use
            Whether it becomes the stage's present result; one that its gates refuse is only kept.
        """
        record = {**asdict(completion), "ingredients": to_record(completion.ingredients)}
        row = (completion.stage, completion.fingerprint, attempt, completion.finished_at, json.dumps(record))
        with self._transaction(durable=True) as run:
            number = run(
                "INSERT INTO completion (stage, fingerprint, attempt, at, record) VALUES (?, ?, ?, ?, ?)", row
            ).lastrowid
            if in_use:
                run("INSERT OR REPLACE INTO current VALUES (?, ?)", (completion.stage, number))

    def use(self, stage: str, fingerprint: str) -> None:
        """Note that the workspace now holds the result of ``fingerprint``."""
        with self._transaction() as run:
            run(
                "INSERT OR REPLACE INTO current "
                "SELECT ?, id FROM completion WHERE fingerprint = ? ORDER BY id DESC LIMIT 1",
                (stage, fingerprint),
            )

    def in_use(self, stage: str) -> Completion | None:
        """Return the stage's present result."""
        query = "SELECT record FROM completion JOIN current ON completion.id = current.completion WHERE current.stage = ?"
        with self._explained(), self._lock:
            row = self._connection.execute(query, (stage,)).fetchone()
        return _completion(row[0]) if row else None

    def completions(self) -> tuple[Decoded, Decoded]:
        """Return the newest completion of each fingerprint, and the one in use for each stage.

        Records are decoded only when they are asked for: a project may hold many thousands. One that is
        damaged counts as none: its stage is not done.
        """
        with self._explained(), self._lock:
            rows = self._connection.execute(
                "SELECT id, fingerprint, record FROM completion ORDER BY id"
            ).fetchall()
            used = self._connection.execute("SELECT stage, completion FROM current").fetchall()
        by_number = {number: record for number, _, record in rows}
        newest = Decoded({fingerprint: record for _, fingerprint, record in rows})
        latest = Decoded({stage: by_number[number] for stage, number in used if number in by_number})
        return newest, latest

    def results(self) -> dict[int, Completion]:
        """Return every completion by its number, oldest first; damaged records are passed over."""
        with self._explained(), self._lock:
            rows = self._connection.execute("SELECT id, record FROM completion ORDER BY id").fetchall()
        found = ((number, _completion(record)) for number, record in rows)
        return {number: completion for number, completion in found if completion is not None}

    def forget_damaged(self) -> list[str]:
        """Remove the records that cannot be read, and return the stage of each: it is not done."""
        with self._transaction(durable=True) as run:
            rows = run("SELECT id, stage, record FROM completion ORDER BY id").fetchall()
            damaged = [(number, stage) for number, stage, record in rows if _completion(record) is None]
            for number, _ in damaged:
                run("DELETE FROM completion WHERE id = ?", (number,))
                run("DELETE FROM current WHERE completion = ?", (number,))
        return [str(stage) for _, stage in damaged]

    def numbers_in_use(self) -> set[int]:
        """Return the numbers of the stages' present results."""
        with self._explained(), self._lock:
            return {number for (number,) in self._connection.execute("SELECT completion FROM current")}

    def last_uses(self) -> dict[str, float]:
        """Return when a run last made or reused the result of each fingerprint."""
        query = (
            "SELECT json_extract(body, '$.fingerprint'), max(at) FROM event "
            "WHERE kind IN ('StageFinished', 'StageReused') AND json_valid(body) GROUP BY 1"
        )
        with self._explained(), self._lock:
            return dict(self._connection.execute(query).fetchall())

    # The journal

    def append(self, event: Event) -> None:
        """Append an event to the journal."""
        record = encode(event)
        row = (event.run, record["event"], event.at, json.dumps(record))
        with self._explained(), self._lock:
            self._be_durable(False)
            self._connection.execute("INSERT INTO event (run, kind, at, body) VALUES (?, ?, ?, ?)", row)

    def events(self, *, run: str = "", kinds: tuple[str, ...] = ()) -> list[Event]:
        """Return the events of one run or of all, oldest first, of ``kinds`` or of every kind."""
        clauses, values = ["1"], []
        if run:
            clauses.append("run = ?")
            values.append(run)
        if kinds:
            clauses.append(f"kind IN ({','.join('?' * len(kinds))})")
            values += kinds
        query = f"SELECT body FROM event WHERE {' AND '.join(clauses)} ORDER BY id"  # noqa: S608 - only marks
        with self._explained(), self._lock:
            rows = self._connection.execute(query, values).fetchall()
        return [event for (body,) in rows if (event := _decode(body)) is not None]

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, newest first."""
        query = "SELECT run FROM event WHERE kind = 'RunStarted' ORDER BY id DESC"
        with self._explained(), self._lock:
            return [run for (run,) in self._connection.execute(query).fetchall()]

    def last_outcomes(self) -> dict[str, Event]:
        """Return, for each stage that was ever tried, how it ended the last time."""
        query = (
            "SELECT body FROM event WHERE id IN (SELECT max(id) FROM event WHERE kind IN "
            "('StageFinished', 'StageFailed', 'StageReused') AND json_valid(body) "
            "GROUP BY json_extract(body, '$.stage'))"
        )
        with self._explained(), self._lock:
            rows = self._connection.execute(query).fetchall()
        events = (_decode(body) for (body,) in rows)
        return {
            event.stage: event for event in events if event is not None and not isinstance(event, _OF_RUNS)
        }

    # Memos

    def memo(self) -> Memo:
        """Return the remembered digests of workspace files."""
        with self._explained(), self._lock:
            rows = self._connection.execute(
                "SELECT path, size, mtime, ctime, inode, digest FROM memo"
            ).fetchall()
        return Memo(
            {path: (size, mtime, ctime, inode, digest) for path, size, mtime, ctime, inode, digest in rows}
        )

    def facts(self) -> dict[str, str]:
        """Return every JSON text that was kept, by key; one that is damaged is found out anew."""
        with self._explained(), self._lock:
            query = "SELECT key, value FROM fact WHERE json_valid(value)"
            return dict(self._connection.execute(query).fetchall())

    def keep(self, memo: Memo, facts: Mapping[str, str]) -> None:
        """Remember what ``memo`` found anew, and texts by key; what was there before is replaced."""
        if not self.writable or not (memo.fresh or facts):
            return
        entries = [(path, *entry) for path, entry in memo.fresh.items()]
        with self._transaction() as run:
            for row in entries:
                run("INSERT OR REPLACE INTO memo VALUES (?, ?, ?, ?, ?, ?)", row)
            for item in facts.items():
                run("INSERT OR REPLACE INTO fact VALUES (?, ?)", item)

    # Shell

    def _prepare(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            fix = "update nbtools, or delete the folder .nbtools to begin afresh"
            raise OperationError.of(
                "the project was used with a newer nbtools", where=str(self._path), fix=fix
            )
        if version == 0:
            self._connection.executescript(_SCHEMA + f"PRAGMA user_version = {_SCHEMA_VERSION};")

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[Any]:
        with self._explained(), self._lock:
            self._be_durable(durable)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _be_durable(self, durable: bool) -> None:
        # In WAL mode only FULL makes a commit survive a power cut; records must, the rest may not.
        if durable is not self._durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = str(error)
            fix = "check the disk's free space and the permissions of .nbtools"
            if _is_damage(error):
                fix = "delete .nbtools/state.db: the next run starts afresh, nothing of yours is lost"
            raise OperationError.of(
                f"the project's state: {message}", where=str(self._path), fix=fix
            ) from error


def set_aside_if_damaged(path: Path) -> Path | None:
    """Move a state that SQLite cannot read out of the way, so that a new one is begun.

    Nobody may be running. All pages are read, which takes about a millisecond for each megabyte.

    Returns
    -------
    Where it lies now; None if nothing is wrong with it, or there is none.
    """
    if not path.exists() or not _is_damaged(path):
        return None
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for ending in ("-wal", "-shm", ""):  # the file itself last: whoever is killed before does all of it again
        with suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside


def _is_damaged(path: Path) -> bool:
    try:
        with closing(_open(str(path), uri=False)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.Error as error:
        return _is_damage(error)


def _is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error means damage; an error of the disk, or a lock, does not."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # what stands above says it more exactly
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Decoded:
    """Completions by key that are decoded on first use."""

    def __init__(self, records: dict[str, str]) -> None:
        self._records = records
        self._decoded: dict[str, Completion | None] = {}

    def get(self, key: str) -> Completion | None:
        """Return the completion of ``key``; None if there is none that can be read."""
        if key not in self._decoded:
            self._decoded[key] = _completion(self._records[key]) if key in self._records else None
        return self._decoded[key]


def _completion(text: str) -> Completion | None:
    try:
        record = json.loads(text)
        record["ingredients"] = from_record(record["ingredients"])
        record["changed_inputs"] = tuple(record.get("changed_inputs", ()))
        completion = Completion(**{name: record[name] for name in Completion.__slots__ if name in record})
        return completion if isinstance(completion.outputs, dict) else None
    except (ValueError, TypeError, KeyError):
        return None  # damaged


def _decode(body: str) -> Event | None:
    try:
        record = json.loads(body)
        return decode(record) if isinstance(record, dict) else None
    except (ValueError, TypeError):
        return None  # damaged, or written by a newer nbtools


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    if writable:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _open(str(path), uri=False)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection
    if not path.exists():
        return _open(":memory:", uri=False)
    address = path.resolve().as_uri()
    try:
        connection = _open(f"{address}?mode=ro", uri=True)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # None yet: somebody is making it at this moment, or was killed while doing so.
        return connection if tables else _open(":memory:", uri=False)
    except sqlite3.OperationalError:
        # A folder that cannot be written to: nobody else writes there either.
        return _open(f"{address}?mode=ro&immutable=1", uri=True)


def _open(address: str, *, uri: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=uri, timeout=30, isolation_level=None, check_same_thread=False)
    # A damaged text must not make the rest unreadable.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    return connection
