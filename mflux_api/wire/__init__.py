"""What several dialects share: the fields of an order, where pictures can be had."""
