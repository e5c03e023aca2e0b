-- One row: who the journal belongs to and where it stands.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    home TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    last_outbox INTEGER NOT NULL,
    dropped INTEGER NOT NULL,   -- events that retention has archived and dropped
    commits INTEGER NOT NULL,   -- tells a writer that somebody else has written
    sum INTEGER NOT NULL
);

-- Where each stream ends, and from where on its events are still here.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,
    hash BLOB,
    base_version INTEGER NOT NULL DEFAULT 0,
    base_hash BLOB,
    UNIQUE (project, kind, name)
);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams (id),
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    event TEXT NOT NULL,
    form INTEGER NOT NULL,
    data TEXT NOT NULL,
    reason_code TEXT,
    reason_text TEXT,
    hash BLOB NOT NULL
);
CREATE UNIQUE INDEX events_of_stream ON events (stream, version);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams (id),
    body TEXT NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE timers (
    stream INTEGER NOT NULL REFERENCES streams (id),
    key TEXT NOT NULL,
    due INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (stream, key)
) WITHOUT ROWID;

CREATE TABLE views (
    stream INTEGER PRIMARY KEY REFERENCES streams (id),
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    open INTEGER NOT NULL,
    touched INTEGER NOT NULL,   -- the journal's last sequence when the row was written
    doc TEXT NOT NULL,
    sum INTEGER NOT NULL
);
CREATE INDEX views_newest ON views (kind, touched DESC, stream DESC);
CREATE INDEX views_open ON views (kind, touched DESC, stream DESC) WHERE open = 1;

CREATE TABLE snapshots (
    stream INTEGER PRIMARY KEY REFERENCES streams (id),
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE progress (
    stream INTEGER PRIMARY KEY REFERENCES streams (id),
    doc TEXT NOT NULL,
    sum INTEGER NOT NULL
);
