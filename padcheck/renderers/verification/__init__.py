"""What `padcheck verify` found, for a terminal (`text`), for programs (`json_`) and as a page (`html`).

Everything here reads `padcheck.verifying.outcomes.Comparison`, and needs no torch.
"""
