"""The engine: the only code that uses MLX. It runs in a child process."""

import os

from mflux_api.engine.blas import load_openblas

# Without this, transformers warns on every import that torch is missing. Only its tokenizers are used here.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# This must run before mlx.core is imported: MLX binds the BLAS symbols that are loaded at that moment.
load_openblas()
