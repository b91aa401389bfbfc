"""Finished runs behind a page and an HTTP interface."""
