"""What outlives a restart: the embedded store."""
