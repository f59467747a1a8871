"""The tables of the store, and the version that says whether a file has them."""

from __future__ import annotations

SCHEMA_VERSION = 1
# "ifla": marks the file as a store of answers, whatever it is called.
APPLICATION_ID = 0x69666C61

# Money is in whole nano-dollars: sums are exact, so a cap can be met to the last of them.
TABLES = """
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    provider TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, host TEXT NOT NULL,
    api_version TEXT NOT NULL, betas TEXT NOT NULL, sample INTEGER NOT NULL,
    ask_again INTEGER NOT NULL, body BLOB NOT NULL
);
-- Bodies are the bytes that came, deflated. What follows `channel` is derived from them and may be
-- derived anew. `copy` > 0: the same request was answered (and billed) once more.
CREATE TABLE responses (
    key TEXT NOT NULL, copy INTEGER NOT NULL,
    body BLOB NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL,
    sent_at REAL NOT NULL, received_at REAL NOT NULL, channel TEXT NOT NULL,
    outcome TEXT, input_tokens INTEGER, cache_write_tokens INTEGER, cache_write_1h_tokens INTEGER,
    cache_read_tokens INTEGER, output_tokens INTEGER, cost_nano INTEGER, price_id TEXT,
    request_id TEXT, model TEXT, attempts INTEGER, why TEXT,
    UNIQUE (key, copy)
);
CREATE TABLE failures (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, at REAL NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL, what TEXT NOT NULL, status INTEGER NOT NULL,
    maybe_billed INTEGER NOT NULL, request_id TEXT NOT NULL
);
CREATE TABLE leases (
    key TEXT PRIMARY KEY, process TEXT NOT NULL, owner TEXT NOT NULL, since REAL NOT NULL
) WITHOUT ROWID;
-- `process` of a batch's reservations is "batch:" and its number: they outlive the process.
CREATE TABLE reservations (
    key TEXT PRIMARY KEY, nano INTEGER NOT NULL, process TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX reservations_by_process ON reservations (process);
-- `presumed`: of attempts that may have been billed but brought no answer.
CREATE TABLE money (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    spent INTEGER NOT NULL, presumed INTEGER NOT NULL, reserved INTEGER NOT NULL
);
INSERT INTO money VALUES (1, 0, 0, 0);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, provider TEXT NOT NULL, n INTEGER NOT NULL,
    intended_at REAL NOT NULL, service_id TEXT UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('intended', 'created', 'collected', 'void')),
    why TEXT NOT NULL DEFAULT ''
);
CREATE TABLE batch_entries (
    batch INTEGER NOT NULL, key TEXT NOT NULL, kind TEXT,
    PRIMARY KEY (batch, key)
) WITHOUT ROWID;
CREATE INDEX batch_entries_by_key ON batch_entries (key);
"""
