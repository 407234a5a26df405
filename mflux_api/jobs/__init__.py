"""Jobs: orders, records, the queue and its database, picture files, events, and the service that every API uses."""
