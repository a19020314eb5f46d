"""Labelled images: classes, the strict reader, the data sets, how to get and to check them, and transforms.

A data-free run needs none of this before its evaluation: real images train demonstration teachers and measure mIoU.
"""
