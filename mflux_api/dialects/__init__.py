"""The served APIs, one module or package each. They translate HTTP to and from `jobs.service`."""
