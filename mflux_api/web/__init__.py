"""HTTP building blocks, independent of jobs and models."""
