"""Item response theory: the item bank, the abilities of models, and the choice of items."""
