"""Build the application from the settings, start it and stop it."""
