"""Fast forms of slow operations, each beside its plain form and a parity test."""
