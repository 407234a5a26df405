"""The only code that knows MLX."""

from mflux_api.engine.blas import load_openblas

# Before anything imports mlx.core: MLX binds the BLAS symbols that it finds at that moment.
load_openblas()
