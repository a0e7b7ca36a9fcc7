"""The tables of the SQLite store. A change is a new entry at the end; what stands here was shipped and stays.

Statements are separated by an empty line.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

_TABLES = """
CREATE TABLE consumers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    ext_consumer_id TEXT NOT NULL,
    lp_consumer_id TEXT,
    token TEXT NOT NULL,
    UNIQUE (account_id, ext_consumer_id)
);

CREATE INDEX consumers_by_lp_id ON consumers (account_id, lp_consumer_id);

CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    ext_consumer_id TEXT NOT NULL,
    client_properties TEXT,
    opened_at REAL NOT NULL,
    is_closed INTEGER NOT NULL,
    UNIQUE (account_id, conversation_id)
);

CREATE INDEX conversations_by_consumer ON conversations (account_id, ext_consumer_id);

CREATE TABLE seen (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    key TEXT NOT NULL,
    UNIQUE (account_id, key)
);

CREATE TABLE echoes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    sequence INTEGER
);

CREATE INDEX echoes_by_digest ON echoes (account_id, conversation_id, digest);

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    key TEXT NOT NULL,
    lane TEXT NOT NULL,
    body BLOB NOT NULL,
    part INTEGER NOT NULL,
    received_at REAL NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0,
    owner TEXT,
    lease_until REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    UNIQUE (account_id, key)
);

CREATE INDEX deliveries_open ON deliveries (account_id, id) WHERE state < 2;

CREATE INDEX deliveries_claimed ON deliveries (account_id, lane) WHERE state = 1;

CREATE INDEX deliveries_dead ON deliveries (account_id, id) WHERE state = 3;

CREATE INDEX deliveries_by_lane ON deliveries (account_id, lane);

CREATE TABLE open_counts (account_id TEXT PRIMARY KEY, open INTEGER NOT NULL) WITHOUT ROWID;

CREATE TRIGGER count_put AFTER INSERT ON deliveries BEGIN
    INSERT INTO open_counts VALUES (NEW.account_id, 1) ON CONFLICT DO UPDATE SET open = open + 1;
END;

CREATE TRIGGER count_settled AFTER UPDATE OF state ON deliveries WHEN OLD.state < 2 AND NEW.state >= 2 BEGIN
    UPDATE open_counts SET open = open - 1 WHERE account_id = OLD.account_id;
END;

CREATE TRIGGER count_revived AFTER UPDATE OF state ON deliveries WHEN OLD.state >= 2 AND NEW.state < 2 BEGIN
    UPDATE open_counts SET open = open + 1 WHERE account_id = OLD.account_id;
END;

CREATE TRIGGER count_forgotten AFTER DELETE ON deliveries WHEN OLD.state < 2 BEGIN
    UPDATE open_counts SET open = open - 1 WHERE account_id = OLD.account_id;
END
"""

_OUTBOX = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    id TEXT NOT NULL,
    lane TEXT NOT NULL,
    body BLOB NOT NULL,
    request_id TEXT NOT NULL,
    opening BLOB,
    put_at REAL NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER,
    conversation_id TEXT,
    reason TEXT,
    maybe_duplicate INTEGER NOT NULL DEFAULT 0,
    settled_at REAL,
    exception INTEGER,
    UNIQUE (account_id, id)
);

CREATE INDEX messages_unsettled ON messages (account_id, lane, number) WHERE state < 2;

CREATE INDEX messages_dead ON messages (exception) WHERE state > 2;

CREATE INDEX messages_exceptions ON messages (account_id, exception) WHERE exception IS NOT NULL;

CREATE TABLE lanes (
    account_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    free_at REAL NOT NULL,
    held_by TEXT,
    PRIMARY KEY (account_id, lane)
) WITHOUT ROWID;

CREATE INDEX lanes_free ON lanes (account_id, free_at) WHERE held_by IS NULL;

CREATE TABLE outbox_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE outbox_counts (account_id TEXT PRIMARY KEY, unsettled INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE outbox_pruned (
    account_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    maybe_duplicate INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (account_id, state, maybe_duplicate)
) WITHOUT ROWID
"""

MIGRATIONS = (_TABLES, _OUTBOX)
