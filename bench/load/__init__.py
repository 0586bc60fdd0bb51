"""Load generators and the request bodies that they send."""
