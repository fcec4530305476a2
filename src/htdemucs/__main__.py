"""`python -m htdemucs`."""

from htdemucs.cli.main import run

if __name__ == "__main__":
    run()
