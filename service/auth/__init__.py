"""API keys: who may call, and what each caller may do."""
