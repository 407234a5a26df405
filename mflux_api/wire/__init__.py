"""Code shared by several dialects: the Dialect class, order fields, ranges, input pictures and picture URLs."""
