"""One module per use case: what each endpoint does, without HTTP."""
