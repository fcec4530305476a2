"""The shipped model's recipe: songs made from installable packages, then training."""
