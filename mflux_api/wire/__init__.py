"""What several dialects share: what a dialect is, fields of orders, sizes, pictures that are sent or handed out."""
