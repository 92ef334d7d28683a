"""What padding does to an edit, on the user's own model: the same edit right, left as an editor would do it, and corrected.

    opening     the model, the tokenizer and the second moments
    literal     an edit on one padded batch, wrong or right in three separate ways
    diagnosing  why such an edit met a number that is not finite
    measuring   what the model says, unpadded
    viewing     the padded row that is furthest off
    comparing   the edits side by side, request by request
    outcomes    what came of them: plain numbers and words, for the reports in `padcheck.renderers.verification`

Importing this package and `outcomes` imports neither torch nor transformers.
"""
