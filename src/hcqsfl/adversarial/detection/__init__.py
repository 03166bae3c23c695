"""Detection of malicious clients and intrusions."""
