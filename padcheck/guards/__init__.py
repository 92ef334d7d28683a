"""What `padcheck.guard` is made of: functions redirected, tokenizers and models kept, rows watched."""
