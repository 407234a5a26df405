"""Image processing with Pillow: sizes, masks, formats and embedded text. Independent of HTTP."""
