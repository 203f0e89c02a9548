"""The version of multifuse."""

__version__ = "0.1.0"
