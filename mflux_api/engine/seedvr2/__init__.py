"""SeedVR2, an upscaler: mflux's modules with the published weights."""
