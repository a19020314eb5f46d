"""Reading labelled images: classes, the strict reader, the data sets and the reading-side transforms.

A data-free run needs none of this before its evaluation: real images train demonstration teachers and measure mIoU.
"""
