"""Models: found on disk, checked, loaded and warmed into VersionEntries."""
