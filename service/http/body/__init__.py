"""Request bodies: read, decoded, bounded, and turned into arrays and documents."""
