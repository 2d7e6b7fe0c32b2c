"""Reading and judging model files; imports no torch at module level."""
