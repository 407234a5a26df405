"""What can be read of a model on disk without MLX: files, headers, configs, sizes, memory."""
