"""FLUX.2 (klein and dev): loading, prompt encoding, sampling, decoding."""
