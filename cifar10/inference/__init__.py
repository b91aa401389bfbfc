"""A finished run in your hands: load, predict, export, serve."""
