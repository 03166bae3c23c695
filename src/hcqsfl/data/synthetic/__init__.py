"""Writers of synthetic recordings in the four official formats."""
