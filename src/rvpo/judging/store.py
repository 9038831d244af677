"""Replies that were paid for, kept in one sqlite file that any number of processes share.

Key: sha256 of the canonical JSON of everything the reply depends on (model, base URL, messages, of which the part that
all calls about one answer share is hashed by itself, sampling parameters, prompt hash, sample index). Value: the raw
reply and its token counts, never a parsed verdict, so that a better parser reads old replies too. Only replies that
could be parsed are stored; a key is never overwritten.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.llm.reply import Reply

__all__ = ["VerdictStore", "request_key"]

TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY,
    model TEXT NOT NULL,
    reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID
"""
AT_ONCE = 500
"""Keys per query, below sqlite's limit of variables."""
BUSY_SECONDS = 60.0
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
PAGES_OF_LOG = 8192
"""Pages (4 KiB) written to the log before they are moved into the file, which waits for the disk."""


def request_key(request: dict[str, Any]) -> bytes:
    """Return the key of a request: sha256 of its canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(request).encode("utf-8", "surrogatepass")).digest()


class VerdictStore:
    """Replies on disk. Safe for several threads and processes; each has its own connection.

    With `path=None` replies are kept in memory, for this object alone.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._local = threading.local()
        self._memory: sqlite3.Connection | None = None
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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._local.kept = kept = (os.getpid(), self._open(str(self.path)))
        return kept[1]

    def _open(self, path: str) -> sqlite3.Connection:
        try:
            # Autocommit: a stored reply is on disk before the next one is asked for.
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            for attempt in range(50):  # switching to WAL does not wait for other processes that switch too
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError:
                    time.sleep(0.02 * (attempt + 1))
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={PAGES_OF_LOG}")
            connection.execute(TABLE)
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"cannot use {path} as a verdict store: {error}") from error
        return connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """Return the stored replies among the keys."""
        replies = {}
        with self._lock:
            connection = self._connection()
            for start in range(0, len(keys), AT_ONCE):
                chunk = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT key, reply, prompt_tokens, completion_tokens FROM replies WHERE key IN ({marks})"
                for key, *reply in connection.execute(query, chunk):
                    replies[key] = Reply(*reply)
        return replies

    def put(self, key: bytes, model: str, reply: Reply) -> None:
        """Keep a reply; one that is there already stays."""
        with self._lock:
            self._connection().execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                (key, model, reply.text, reply.prompt_tokens, reply.completion_tokens, time.time()),
            )

    def statistics(self) -> list[dict[str, Any]]:
        """Return one row per model: replies, tokens, first and last time (seconds since 1970)."""
        query = """SELECT model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), MIN(created), MAX(created)
                   FROM replies GROUP BY model ORDER BY model"""
        names = ("model", "replies", "prompt_tokens", "completion_tokens", "first", "last")
        with self._lock:
            return [dict(zip(names, row, strict=True)) for row in self._connection().execute(query)]

    def export(self) -> Iterator[dict[str, Any]]:
        """Yield every stored reply, oldest first, keys as hexadecimal text."""
        names = ("key", "model", "reply", "prompt_tokens", "completion_tokens", "created")
        with self._lock:
            rows: Iterable[tuple[Any, ...]] = self._connection().execute("SELECT * FROM replies ORDER BY created, key")
            for key, *rest in rows:
                yield dict(zip(names, (key.hex(), *rest), strict=True))

    def prune(self, *, model: str | None = None, older_than_days: float | None = None) -> int:
        """Delete replies of a model, or older than so many days, or both; return how many. Needs one of them."""
        if model is None and older_than_days is None:
            raise ConfigError("prune needs a model or an age; to delete everything, delete the file")
        oldest = float("inf") if older_than_days is None else time.time() - 86_400 * older_than_days
        with self._lock:
            connection = self._connection()
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
