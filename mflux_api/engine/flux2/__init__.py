"""FLUX.2 klein: loading, conditioning, sampling, decoding."""
