"""The command `active-query`."""
