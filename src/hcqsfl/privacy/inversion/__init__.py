"""What attacks that reconstruct windows are made of: halves of the victim's network, shadows of them, decoders."""
