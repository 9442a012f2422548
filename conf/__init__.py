"""Settings and contracts: plain data that every layer may import."""

__version__ = "0.1.0"
