"""Sounds become stems: effects, balance, a mixture without clipping."""
