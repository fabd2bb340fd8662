"""A run's directory: files, seals, claims, checkpoints, records, provenance, several processes."""
