"""Plain networks trained from scratch, one per file: torch only, no Lightning."""
