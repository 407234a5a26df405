"""SeedVR2: pictures enlarged by mflux's modules, from weights as they are published."""
