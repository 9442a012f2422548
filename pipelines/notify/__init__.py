"""How a call ended, for metrics and the webhook."""
