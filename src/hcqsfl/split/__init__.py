"""The cut: a module whose forward and backward cross a wire."""
