"""The schema of the job database, as one migration per version."""

# Entry i migrates the database from version i to i + 1. Never change an entry that was released.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        held INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        owner TEXT NOT NULL,
        key TEXT,
        digest TEXT,
        model TEXT NOT NULL,
        low_ram INTEGER NOT NULL,
        request TEXT NOT NULL,
        inputs TEXT NOT NULL,
        pictures TEXT NOT NULL DEFAULT '[]',
        size INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        created REAL NOT NULL,
        started REAL,
        finished REAL
    );
    CREATE UNIQUE INDEX jobs_key ON jobs (owner, key) WHERE key IS NOT NULL;
    CREATE INDEX jobs_line ON jobs (priority DESC, number) WHERE state IN ('queued', 'interrupted');
    CREATE INDEX jobs_state ON jobs (state, number);
    CREATE INDEX jobs_finished ON jobs (finished) WHERE finished IS NOT NULL;
    CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL);
    CREATE TABLE paces (
        model TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
        step REAL NOT NULL, rest REAL NOT NULL, samples INTEGER NOT NULL,
        PRIMARY KEY (model, width, height)
    );
    """,
    "CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);",
    """
    CREATE TABLE deliveries (
        job TEXT PRIMARY KEY, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, error TEXT
    );
    CREATE INDEX deliveries_due ON deliveries (due) WHERE state = 'waiting';
    """,
    # The index holds all columns needed to find a page of pictures. The rows are a hundred times as large.
    """
    ALTER TABLE jobs ADD COLUMN present INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN folded TEXT NOT NULL DEFAULT '';
    UPDATE jobs SET present = json_array_length(pictures), folded = casefold(json_extract(request, '$.prompt'));
    CREATE INDEX jobs_present ON jobs (number, model, present, folded) WHERE present > 0;
    """,
    # A job may have several deliveries. SQLite cannot change a primary key, so the table is created again.
    """
    ALTER TABLE deliveries RENAME TO earlier;
    CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, event TEXT NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, status INTEGER, error TEXT, UNIQUE (job, event)
    );
    INSERT INTO deliveries (job, event, state, attempts, due, error)
        SELECT job, 'completed', state, attempts, due, error FROM earlier;
    DROP TABLE earlier;
    CREATE INDEX deliveries_due ON deliveries (due) WHERE state = 'waiting';
    """,
    """
    ALTER TABLE jobs ADD COLUMN place REAL NOT NULL DEFAULT 0;
    UPDATE jobs SET place = number;
    DROP INDEX jobs_line;
    CREATE INDEX jobs_line ON jobs (priority DESC, place) WHERE state IN ('queued', 'interrupted');
    """,
    """
    CREATE TABLE history (
        hour INTEGER PRIMARY KEY, pictures INTEGER NOT NULL, failures INTEGER NOT NULL, seconds REAL NOT NULL
    );
    INSERT INTO history
        SELECT CAST(finished / 3600 AS INTEGER),
            sum(iif(state = 'completed', json_array_length(pictures), 0)),
            sum(state = 'failed'),
            sum(iif(state = 'completed', coalesce(finished - started, 0), 0))
        FROM jobs WHERE state IN ('completed', 'failed') GROUP BY 1;
    """,
    # Webhooks to different hosts are sent at the same time.
    """
    ALTER TABLE deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';
    UPDATE deliveries SET host = coalesce(
        (SELECT url_host(json_extract(request, '$.note.webhook')) FROM jobs WHERE jobs.id = deliveries.job), '');
    """,
)
