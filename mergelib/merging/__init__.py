"""From a recipe to tensors written into a resident model."""
