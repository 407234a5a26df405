"""Put the application together from the settings, start it and stop it."""
