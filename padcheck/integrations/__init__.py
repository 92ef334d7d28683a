"""Editing frameworks, wrapped so that every run of theirs is guarded."""
