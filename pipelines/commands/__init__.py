"""One file for each thing a person asks of a lake that is there: look, prove, restore, tidy up, stream."""
