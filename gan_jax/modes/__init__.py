"""TODO modes."""
