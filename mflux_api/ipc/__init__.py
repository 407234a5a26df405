"""What the server and its engine process say to each other."""
