"""The server's end of the engine: take a job, hand it over, relay what comes back."""
