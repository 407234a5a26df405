"""Messages between the server and its engine process, and their transport."""
