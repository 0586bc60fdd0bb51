"""What is to be seen of a running server: logs, metrics, HTTP health, the table at the start."""
