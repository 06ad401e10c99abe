-- berth's metadata, version 4: health checks.

ALTER TABLE containers ADD COLUMN health TEXT NOT NULL DEFAULT '';  -- starting, healthy, unhealthy; '': no check

-- What is remembered of the probes since a container's start.
CREATE TABLE health (
  id     TEXT PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  streak INTEGER NOT NULL,               -- failures in a row
  log    TEXT NOT NULL                   -- [domain::health::Probed, …], oldest first
) STRICT, WITHOUT ROWID;
