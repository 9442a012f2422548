"""One file for each thing that a person asks of a lake: look, prove, restore, tidy up, stream."""
