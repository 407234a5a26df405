"""Code shared by several dialects: the Dialect class, order fields, sizes, input pictures and picture URLs."""
