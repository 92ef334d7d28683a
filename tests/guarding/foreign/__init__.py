"""Editors for the tests, written from scratch: same files, functions and variables as published ones, and the same mistakes."""
