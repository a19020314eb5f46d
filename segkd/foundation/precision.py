"""In which precision numbers are added up."""

import torch
from torch import Tensor


def wide(value: Tensor) -> Tensor:
    """The tensor in fp32, or in fp64 where it is: what losses, statistics and images are computed in under autocast."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
