"""From an lm-eval task to scored responses of a resident model, item by item."""
