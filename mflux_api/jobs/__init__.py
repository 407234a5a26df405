"""A job's life: record, database, files, events, order, and the one door to them all."""
