"""Outgoing connections: client-supplied URLs, guarded against SSRF, and S3 storage."""
