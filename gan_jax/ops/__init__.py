"""Array primitives."""
