"""The command line, built with click. Only this package prints and exits.

Start with `main.py`, the group of all commands, then `separate.py`. Each command is a file:
decorators declare its options, its function calls the library, and errors of the library become
one line (`console.py`). Progress is in `progress.py`.

To add a command, write its file and add it to `main.py`; options that several commands share are in
`options.py`. Then run `python docs/generate.py`.
"""
