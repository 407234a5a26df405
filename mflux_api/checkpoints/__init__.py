"""Read models on disk without MLX: files, headers, configs, sizes, memory estimates."""
