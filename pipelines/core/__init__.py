"""What everything may use and what touches no table, server or session: faults, console, locks, names, catalogue."""
