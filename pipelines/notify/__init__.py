"""Reports how a call ended, to metrics and to a webhook."""
