"""Who may talk to the server, and over what: TLS."""
