"""Brings a file to this version's schema, or refuses it."""

from __future__ import annotations

import apsw

from dq.errors import ForeignDatabase, NewerSchema, StoreError
from dq.store import faults
from dq.store.sql import SQL, read
from dq.store.transaction import transaction

APPLICATION_ID = 0x64717101
VERSION = 2
PAGE_SIZE = 4096  # bytes; a sync costs by the bytes of its pages, and large payloads have files of their own


def check(connection: apsw.Connection, path: str) -> bool:
    """Whether the file is one of dq's; False where it is still empty. Raises ForeignDatabase, NewerSchema, CorruptDatabase."""
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application == APPLICATION_ID:
        if not isinstance(version, int) or version > VERSION:
            raise NewerSchema(
                f"{path} was written by a later version of dq (its schema is {version}, this dq knows up to {VERSION}). "
                "Nothing is changed. Upgrade with `pip install -U dq-durable`, or choose another file."
            )
        if version < 1:
            raise faults.corrupt(path, f"its header says that its schema is {version}, and none ever was")
        return True
    if application == 0 and version == 0 and connection.execute(SQL["count_schema"]).get == 0:
        return False
    raise ForeignDatabase(
        f"{path} is an SQLite database of another application. dq wants a file of its own and changes nothing in this one. "
        "Choose another path."
    )


def upgrade(connection: apsw.Connection) -> None:
    """Brings an earlier version's file to this one's schema, all or nothing."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    if version == VERSION:
        return
    with transaction(connection):
        for step in range(version + 1, VERSION + 1):
            connection.execute(read(f"migrations/{step}.sql"))
        connection.execute(read("views.sql"))  # they hold nothing, so migrations only drop them
        connection.pragma("user_version", VERSION)


def require_current(connection: apsw.Connection, path: str) -> None:
    """Raises StoreError for an earlier version's file: who only reads can't bring it to this one's schema."""
    version = connection.pragma("user_version")
    if version != VERSION:
        raise StoreError(
            f"{path} was written by an earlier version of dq (its schema is {version}, this dq reads {VERSION}). "
            f"`dq up --db {path}` upgrades it, and so does every command that writes."
        )


def use_wal(connection: apsw.Connection, path: str) -> None:
    """Turns write-ahead logging on. Raises StoreError where the file system has no shared memory for it."""
    if connection.pragma("journal_mode", "wal") != "wal":
        raise StoreError(f"{path} can't use a write-ahead log: its file system lacks shared memory. Use a local disk.")


def create(connection: apsw.Connection, path: str, created_at: int) -> None:
    """Fills an empty file, all or nothing: a kill in the middle leaves it empty."""
    connection.pragma("page_size", PAGE_SIZE)
    use_wal(connection, path)
    with transaction(connection):
        connection.execute(read("schema.sql"))
        connection.execute(read("views.sql"))
        connection.execute(SQL["insert_engine"], (created_at,))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", VERSION)
