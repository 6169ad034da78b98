"""Scripts that an exported folder holds; each needs only what it imports, never the lab."""
