"""Replies that were paid for, kept in one sqlite file that any number of processes share.

Key: sha256 of the canonical JSON of everything the reply depends on (model, base URL, messages, of which the part that
all calls about one answer share is hashed by itself, sampling parameters, prompt hash, sample index). Value: the raw
reply and its token counts, never a parsed verdict, so that a better parser reads old replies too. Only replies that
could be parsed are stored; a key is never overwritten.

A table of settings holds what all who share the file must agree on: the secret that ids are made with, and whether a
server takes a schema for its replies.
"""

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, JudgeError
from rvpo.llm.model_text import whole
from rvpo.llm.reply import Reply

__all__ = ["VerdictStore", "request_key"]

TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    created REAL NOT NULL,
    is_cut INTEGER NOT NULL
) WITHOUT ROWID
"""
SETTINGS = "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
COLUMNS = {
    "replies": ["key", "model", "reply", "prompt_tokens", "completion_tokens", "created", "is_cut"],
    "settings": ["name", "value"],
}
AT_ONCE = 500
"""Keys per query, below sqlite's limit of variables."""
BUSY_SECONDS = 60.0
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
PAGES_OF_LOG = 8192
"""Pages (4 KiB) written to the log before they are moved into the file, which waits for the disk."""


def request_key(request: dict[str, Any]) -> bytes:
    """Return the key of a request: sha256 of its canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(request).encode("utf-8", "surrogatepass")).digest()


class _Connection(sqlite3.Connection):
    """Closes with the thread that used it; Python 3.13 warns of a connection that is dropped open."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()


class VerdictStore:
    """Replies on disk. Safe for several threads and processes; each has its own connection.

    With `path=None` replies are kept in memory, for this object alone.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._local = threading.local()
        self._memory: sqlite3.Connection | None = None
        self._secret: bytes | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's and process's connection; sqlite's do not survive a fork."""
        if self.path is None:
            if self._memory is None:
                self._memory = self._open(":memory:")
            return self._memory
        kept: tuple[int, sqlite3.Connection] | None = getattr(self._local, "kept", None)
        if kept is None or kept[0] != os.getpid():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot use {self.path} as a verdict store: {error}") from error
            self._local.kept = kept = (os.getpid(), self._open(str(self.path)))
        return kept[1]

    def _open(self, path: str) -> sqlite3.Connection:
        try:
            # Autocommit: a stored reply is on disk before the next one is asked for.
            connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
            )
            _check_tables(connection, path)
            for attempt in range(50):  # switching to WAL does not wait for other processes that switch too
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError:
                    time.sleep(0.02 * (attempt + 1))
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={PAGES_OF_LOG}")
            connection.execute(TABLE)
            connection.execute(SETTINGS)
        except (sqlite3.Error, ValueError) as error:
            raise ConfigError(f"cannot use {path} as a verdict store: {error}") from error
        return connection

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, to one thread at a time; JudgeError for what goes wrong with the file."""
        with self._lock:
            connection = self._connection()
            try:
                yield connection
            except sqlite3.Error as error:
                raise JudgeError(f"the verdict store {self.path or 'in memory'} failed: {error}") from error

    def check(self) -> None:
        """Raise ConfigError for a file that is damaged or cannot be written: before anything is paid, not after."""
        with self._lock:
            connection = self._connection()
            try:
                (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if state != "ok":
                    raise sqlite3.DatabaseError(f"it is damaged: {' '.join(state.split())}")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT OR REPLACE INTO settings VALUES ('checked', x'')")
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise ConfigError(f"cannot use {self.path or 'memory'} as a verdict store: {error}") from error

    def setting(self, name: str, default: bytes | None = None) -> bytes | None:
        """Return what all who share the file agree on under a name: what is there, or the default, which stays."""
        with self._used() as connection:
            if default is not None:
                connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, default))
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            return None if row is None else bytes(row[0])

    @property
    def secret(self) -> bytes:
        """What the ids of all calls are made with; drawn once for the file."""
        if self._secret is None:
            self._secret = self.setting("secret", secrets.token_bytes(32)) or b""
        return self._secret

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """Return the stored replies among the keys."""
        replies = {}
        with self._used() as connection:
            for start in range(0, len(keys), AT_ONCE):
                chunk = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(chunk))
                query = f"""SELECT key, reply, prompt_tokens, completion_tokens, is_cut FROM replies
                            WHERE key IN ({marks})"""
                for key, text, prompt_tokens, completion_tokens, is_cut in connection.execute(query, chunk):
                    replies[key] = Reply(text, prompt_tokens, completion_tokens, is_cut=bool(is_cut))
        return replies

    def put(self, key: bytes, model: str, reply: Reply) -> None:
        """Keep a reply; one that is there already stays."""
        with self._used() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    whole(model),
                    whole(reply.text),
                    reply.prompt_tokens,
                    reply.completion_tokens,
                    time.time(),
                    reply.is_cut,
                ),
            )

    def statistics(self) -> list[dict[str, Any]]:
        """Return one row per model: replies, tokens, first and last time (seconds since 1970)."""
        query = """SELECT model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), MIN(created), MAX(created)
                   FROM replies GROUP BY model ORDER BY model"""
        names = ("model", "replies", "prompt_tokens", "completion_tokens", "first", "last")
        with self._used() as connection:
            return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]

    def export(self) -> Iterator[dict[str, Any]]:
        """Yield every stored reply, oldest first, keys as hexadecimal text."""
        names = COLUMNS["replies"]
        with self._used() as connection:
            rows: Iterable[tuple[Any, ...]] = connection.execute("SELECT * FROM replies ORDER BY created, key")
            for key, *rest in rows:
                yield dict(zip(names, (key.hex(), *rest), strict=True))

    def prune(self, *, model: str | None = None, older_than_days: float | None = None) -> int:
        """Delete replies of a model, or older than so many days, or both; return how many. Needs one of them."""
        if model is None and older_than_days is None:
            raise ConfigError("prune needs a model or an age; to delete everything, delete the file")
        oldest = float("inf") if older_than_days is None else time.time() - 86_400 * older_than_days
        with self._used() as connection:
            deleted = connection.execute(
                "DELETE FROM replies WHERE (? IS NULL OR model = ?) AND created < ?", (model, model, oldest)
            ).rowcount
            connection.execute("VACUUM")
        return deleted

    def close(self) -> None:
        """Close this thread's connection."""
        kept = getattr(self._local, "kept", None)
        if kept is not None and kept[0] == os.getpid():
            kept[1].close()
        self._local = threading.local()
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _check_tables(connection: sqlite3.Connection, path: str) -> None:
    """Raise ConfigError for a database of somebody else, or a store whose form is not this version's."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table.replace(chr(34), chr(34) * 2)}")')]
        if COLUMNS.get(table) != columns:
            raise ConfigError(
                f"cannot use {path} as a verdict store: it has a table {table!r} with columns {columns}, which is "
                "another program's or another version's; name a new file"
            )
