"""The job database: one SQLite file. Its statements are grouped by subject, one module each."""
