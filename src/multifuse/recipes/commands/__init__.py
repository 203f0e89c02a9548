"""The multifuse command line."""
