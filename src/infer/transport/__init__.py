"""Transports: each mounts the same table of cold handlers and submits inference calls to the same pipeline."""
