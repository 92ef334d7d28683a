"""What padding does to an edit, on the user's own model: the same edit right, left as an editor would do it, and corrected.

    opening     the model, the tokenizer and the second moments
    literal     an edit on one padded batch, wrong or right in three separate ways
    measuring   what the model says, unpadded
    comparing   the edits side by side, request by request
    table       the report as text and as JSON

Importing this package imports neither torch nor transformers.
"""
