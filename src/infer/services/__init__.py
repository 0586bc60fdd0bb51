"""Cold RPCs: one module per service, each a table from path to handler that every transport mounts."""
