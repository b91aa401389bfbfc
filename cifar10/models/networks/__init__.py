"""Plain networks trained from scratch, one a file: torch only, no Lightning."""
