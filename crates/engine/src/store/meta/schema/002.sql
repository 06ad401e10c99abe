-- berth's metadata, version 2: containers can be paused.

ALTER TABLE containers ADD COLUMN paused INTEGER NOT NULL DEFAULT 0; -- only while it runs
