-- berth's metadata, version 1.
-- Times are nanoseconds since the Unix epoch. Documents are JSON.

-- One row: what was decided when this root was made.
CREATE TABLE engine (
  id TEXT NOT NULL                       -- random, 32 hex digits
) STRICT;

-- References: what a name stands for in a namespace. A row whose name is
-- '<none>@<image id>' keeps an image that has lost its last tag (dangling).
CREATE TABLE image_refs (
  namespace  TEXT NOT NULL,
  name       TEXT NOT NULL,              -- docker.io/library/alpine:3.20
  image_id   TEXT NOT NULL,              -- sha256:… of the configuration
  target     TEXT NOT NULL,              -- digest that the registry's tag stood for
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_refs_image ON image_refs (image_id);

-- Unpacked, usable images; shared by all namespaces.
CREATE TABLE images (
  id              TEXT PRIMARY KEY,      -- sha256:… of the configuration
  manifest_digest TEXT NOT NULL,
  chain_id        TEXT,                  -- snapshot of the top layer; NULL: no layers
  created_at      INTEGER NOT NULL,      -- from the configuration; 0 when absent
  size            INTEGER NOT NULL,      -- bytes of all unpacked layers
  config          TEXT NOT NULL          -- the configuration, as it was pulled
) STRICT, WITHOUT ROWID;

-- Blobs in content/: manifests, indexes, configurations, compressed layers.
CREATE TABLE blobs (
  digest     TEXT PRIMARY KEY,
  size       INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which blobs an image needs.
CREATE TABLE image_blobs (
  image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  digest   TEXT NOT NULL,
  PRIMARY KEY (image_id, digest)
) STRICT, WITHOUT ROWID;

-- Snapshots: directories below snapshots/. Committed ones are layers, by
-- chain id; active ones are containers' writable layers, by container id.
CREATE TABLE snapshots (
  dir        INTEGER PRIMARY KEY,        -- snapshots/<dir>/fs (and work)
  key        TEXT NOT NULL UNIQUE,
  parent     TEXT,                       -- key of the one below; NULL: none
  kind       TEXT NOT NULL CHECK (kind IN ('preparing', 'committed', 'active')),
  size       INTEGER NOT NULL DEFAULT 0, -- bytes of a committed one
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshots_parent ON snapshots (parent);

CREATE TABLE containers (
  namespace   TEXT NOT NULL,
  id          TEXT NOT NULL UNIQUE,
  name        TEXT NOT NULL,
  created_at  INTEGER NOT NULL,
  image       TEXT NOT NULL,             -- as the user wrote it
  image_id    TEXT NOT NULL,
  summary     TEXT NOT NULL,             -- domain::container::Summary: what lists need
  document    TEXT NOT NULL,             -- domain::container::Document: everything
  status      TEXT NOT NULL CHECK (status IN ('creating', 'created', 'starting', 'running', 'exited', 'removing')),
  pid         INTEGER NOT NULL DEFAULT 0,
  exit_code   INTEGER NOT NULL DEFAULT 0,
  oom_killed  INTEGER NOT NULL DEFAULT 0,
  error       TEXT NOT NULL DEFAULT '',
  started_at  INTEGER NOT NULL DEFAULT 0,
  finished_at INTEGER NOT NULL DEFAULT 0,
  shim        TEXT,                      -- berth::bundle::ProcessIdentity, while one may live
  PRIMARY KEY (namespace, id),
  UNIQUE (namespace, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_image ON containers (image_id);

CREATE TABLE events (
  cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
  time       INTEGER NOT NULL,
  namespace  TEXT NOT NULL,
  type       TEXT NOT NULL,
  action     TEXT NOT NULL,
  id         TEXT NOT NULL,
  attributes TEXT NOT NULL               -- {"name": "value", …}
) STRICT;
