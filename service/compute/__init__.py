"""Threads, deadlines and admission limits for heavy work."""
