"""API keys, roles and the key file."""
