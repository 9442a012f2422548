"""Settings and contracts: plain data that every layer may import."""

__version__ = "0.1.0"

CALL = "LAKEHOUSE_CALL__"  # in the environment, before the name of an option of the command line
