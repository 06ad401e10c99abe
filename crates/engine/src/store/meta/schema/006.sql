-- berth's metadata, version 6: what logs miss.

-- Lines that could not be written to a container's log, in all its lives
-- ({lines, bytes}), and those of the last that its log doesn't tell of yet
-- ({untold_lines, untold_bytes}); '': none.
ALTER TABLE containers ADD COLUMN log_dropped TEXT NOT NULL DEFAULT '';
