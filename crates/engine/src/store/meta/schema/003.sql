-- berth's metadata, version 3: containers are started again by their policy.

ALTER TABLE containers ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;         -- 1: its user wants it to run
ALTER TABLE containers ADD COLUMN restart_count INTEGER NOT NULL DEFAULT 0;  -- by its policy, since its user started it
ALTER TABLE containers ADD COLUMN restart_waited INTEGER NOT NULL DEFAULT 0; -- milliseconds of the last wait
ALTER TABLE containers ADD COLUMN restart_due INTEGER NOT NULL DEFAULT 0;    -- when it is to be started; 0: not
UPDATE containers SET wanted = 1 WHERE status IN ('starting', 'running');
