"""What may be asked for: models and adapters. No MLX."""
