"""What a person asks of a lake: look, prove, restore, tidy up, stream."""
