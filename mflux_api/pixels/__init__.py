"""Pillow pictures: sizes, masks, the text inside them. No HTTP."""
