"""Which models and adapters there are, where they are, and how they get here."""
