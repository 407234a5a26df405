"""HTTP words in, HTTP words out: one foreign or native API each, thin over `jobs.service`."""
