"""MSKD, distillation from stored activation records (arXiv:1710.07535)."""

from __future__ import annotations

from segkd.methods.ddad import DDAD


class MSKD(DDAD):
    """Images answer to recorded statistics of the teacher's layers alone; the student follows the teacher on them.

    The records are those of `segkd record` (`teacher.statistics`), or without a file the running statistics of BatchNorm
    layers, the case that every checkpoint carries.
    Differs: the published records are means and covariances of one layer's activations, and images are optimised from noise;
    here they are means and variances of every normalisation layer, and a generator follows them, in the preset one that
    changes procedural pictures.

    Options:
        bn: how the distances of statistics add up over layers.
    """

    student, source, pixels = ("kd",), ("bn",), ("bn",)
    weights = {"kd": 1.0, "bn": 1.0}
    options = {"discrepancy": "l1", "temperature": 1.0, "bn": "mean"}
    variants = ()
