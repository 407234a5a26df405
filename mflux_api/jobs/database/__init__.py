"""The job database: one SQLite file, its statements by noun."""
