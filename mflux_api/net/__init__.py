"""Reaching out: addresses that strangers name, connected to only where that is safe."""
