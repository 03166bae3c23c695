"""What an attack found out, measured against the truth and the trivial guess; one file a goal."""
