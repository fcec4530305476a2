"""Recipes: how things that ship with the package were made."""
