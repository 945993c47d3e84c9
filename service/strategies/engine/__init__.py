"""The machinery that all query strategies share."""
