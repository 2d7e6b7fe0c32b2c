"""Runs requests for the page and the web API."""
