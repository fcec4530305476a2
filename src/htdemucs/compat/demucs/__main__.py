"""`python -m demucs`."""

from htdemucs.compat.demucs.separate import main

if __name__ == "__main__":
    main()
