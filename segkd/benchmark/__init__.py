"""How fast a distillation is, beside the plain loop of the literature in the same run."""

from segkd.benchmark.compare import benchmark, described

__all__ = ["benchmark", "described"]
