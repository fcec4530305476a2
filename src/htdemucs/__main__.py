"""`python -m htdemucs`."""

from htdemucs.cli.main import main

if __name__ == "__main__":
    main()
