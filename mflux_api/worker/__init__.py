"""The worker: claims jobs, sends them to the engine process, and relays its replies."""
