"""The page about a sweep, from plain values: its jobs with their settings, figures and learning curves."""
