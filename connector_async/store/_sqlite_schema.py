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

# The states of a message: 0 waiting, 1 begun, 2 accepted, 3 refused, 4 not sent, 5 unknown.
#
# A lane has a row while it has unsettled messages or is held. `head` is the number of its first unsettled message.
# `free_at` is when it can be claimed: when its head is due, or, while it has an owner, when the lease ends; NULL
# while `held_by` names the message that holds it.
_OUTBOX = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    id TEXT NOT NULL,
    lane TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER,
    conversation_id TEXT,
    reason TEXT,
    maybe_duplicate INTEGER NOT NULL DEFAULT 0,
    put_at REAL NOT NULL,
    settled_at REAL,
    accepted INTEGER,
    exception INTEGER,
    opening BLOB,
    body BLOB NOT NULL,
    UNIQUE (account_id, id)
);

CREATE INDEX messages_by_lane ON messages (account_id, lane, number);

CREATE INDEX messages_accepted ON messages (accepted) WHERE accepted IS NOT NULL;

CREATE INDEX messages_exceptions ON messages (account_id, exception) WHERE exception IS NOT NULL;

CREATE TABLE lanes (
    account_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    head INTEGER,
    free_at REAL,
    held_by TEXT,
    PRIMARY KEY (account_id, lane)
) WITHOUT ROWID;

CREATE INDEX lanes_free ON lanes (account_id, free_at, head);

CREATE TABLE outbox_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE outbox_tallies (
    account_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    maybe_duplicate INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (account_id, state, maybe_duplicate)
) WITHOUT ROWID
"""

_SHARING = """
CREATE TABLE receipts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    status TEXT NOT NULL,
    UNIQUE (account_id, conversation_id, sequence, status)
);

CREATE TABLE app_tokens (
    account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    token TEXT NOT NULL,
    ends_at REAL NOT NULL,
    fence INTEGER NOT NULL,
    PRIMARY KEY (account_id, name)
) WITHOUT ROWID;

CREATE TABLE leases (
    account_id TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    ends_at REAL NOT NULL,
    PRIMARY KEY (account_id, name)
) WITHOUT ROWID;

UPDATE consumers SET token = ''
"""  # tokens were written as they are before they could be sealed

# A pump renews all its leases at once: they are a few hundred of, perhaps, a million lanes.
_OWNERS = """
CREATE INDEX lanes_owned ON lanes (owner, account_id) WHERE owner IS NOT NULL
"""

MIGRATIONS = (_TABLES, _OUTBOX, _SHARING, _OWNERS)
