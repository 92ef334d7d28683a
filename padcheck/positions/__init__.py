"""Token positions: where the subject truly is, where an editor looks, and how far apart the two are."""
