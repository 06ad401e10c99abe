-- berth's metadata, version 5: what decides which images are kept.

-- When a container was last made from it, or it was pulled, loaded or made.
ALTER TABLE images ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
UPDATE images SET used_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000;

-- Images that a namespace wants kept although nothing uses them.
CREATE TABLE image_pins (
  namespace TEXT NOT NULL,
  image_id  TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
  PRIMARY KEY (namespace, image_id)
) STRICT, WITHOUT ROWID;

-- Images whose root is mounted somewhere on the host, read-only.
CREATE TABLE image_mounts (
  path       TEXT PRIMARY KEY,           -- absolute, without links
  namespace  TEXT NOT NULL,
  image_id   TEXT NOT NULL REFERENCES images (id),
  boot       TEXT NOT NULL,              -- of the boot that it was mounted in
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX image_mounts_image ON image_mounts (image_id);

-- What a collection asks for each layer and each blob.
CREATE INDEX images_chain ON images (chain_id);
CREATE INDEX image_blobs_digest ON image_blobs (digest);

-- Archives that were loaded by themselves.
CREATE TABLE preloaded (
  path   TEXT PRIMARY KEY,
  size   INTEGER NOT NULL,               -- bytes and time of the file that was loaded
  mtime  INTEGER NOT NULL,
  images TEXT NOT NULL                   -- ids, JSON
) STRICT, WITHOUT ROWID;
