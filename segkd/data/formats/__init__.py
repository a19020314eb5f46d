"""What the bytes of an image file must be before anything is decoded: one file a format.

Pillow forgives most of what is checked here: wrong checksums, missing rows, chunks that stand twice, pages it does not show.
"""
