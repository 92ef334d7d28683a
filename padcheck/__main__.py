"""`python -m padcheck`, and with it `torchrun -m padcheck stats`."""

from padcheck.cli import script

if __name__ == "__main__":
    raise SystemExit(script())
