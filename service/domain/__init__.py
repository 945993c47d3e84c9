"""The values of a project and their rules: no disk, no HTTP, no models."""
