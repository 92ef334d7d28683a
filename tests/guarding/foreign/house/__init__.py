"""An editor in EasyEdit's shape. Its model only notes which tokens are read; see `tape.py`."""
