"""In the PYTHONPATH of the processes that a program starts."""
