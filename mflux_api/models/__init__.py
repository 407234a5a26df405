"""Models and adapters: the registry, what is on disk, and downloads."""
