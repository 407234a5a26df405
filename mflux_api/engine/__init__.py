"""The only code that knows MLX."""

import os

from mflux_api.engine.blas import load_openblas

# Else transformers says on every import that torch is missing. We only want its tokenizers.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Before anything imports mlx.core: MLX binds the BLAS symbols that it finds at that moment.
load_openblas()
