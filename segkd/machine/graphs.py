"""CUDA graphs: what a network launches is recorded once and replayed, since a host is slower than a GPU at small kernels."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError, one_line
from segkd.machine.memory import out_of_memory
from segkd.machine.snapshot import Snapshot

WARM_UPS = 3


class Recorded:
    """An adapter whose forward and backward passes are CUDA graphs: one pair for each shape of images and mode.

    The kernels are those of the adapter, and so are the values. All graphs share memory: logits must be used, and their
    backward pass must be over, before the next call. A network that asks the GPU for a number on its way cannot be
    recorded, and runs as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.graphs: dict[tuple[object, ...], nn.Module | None] = {}
        self._pool: object = None

    def __call__(self, images: Tensor, at_head: bool = False) -> Tensor:
        """Logits of images (N,3,H,W) as the adapter's, under the autocast that is on; gradients as they are asked for.

        Raises:
            TeacherError: the network cannot be recorded, for a reason that showed only then.
        """
        network = self.network
        mode = network.training, network.in_fp32, torch.is_grad_enabled(), images.requires_grad
        key = (images.shape, images.dtype, at_head, *mode, *(p.requires_grad for p in network.parameters()))
        if key not in self.graphs:
            self.graphs[key] = self._record(images, at_head)
        replayed = self.graphs[key]
        return network(images, at_head=at_head) if replayed is None else replayed(images)

    def _record(self, images: Tensor, at_head: bool) -> nn.Module | None:
        """A module that replays; None where the host would wait. Neither buffers nor random numbers move."""
        saved, caching = Snapshot([self.network]), torch.is_autocast_cache_enabled()
        sample = images.detach().clone().requires_grad_(images.requires_grad)
        whole = _AtOneHead(self.network, at_head)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        torch.set_autocast_cache_enabled(False)  # a cast of weights that is cached would be missing from the graph
        try:
            with torch.random.fork_rng([images.device]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of streams that autograd's nodes were made on: no .grad is added to
                if _waits(whole, sample):
                    return None
                return torch.cuda.make_graphed_callables(
                    whole, (sample,), num_warmup_iters=WARM_UPS, allow_unused_input=True, pool=self._pool
                )
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise TeacherError(
                f"the network cannot be recorded as a CUDA graph ({one_line(error, 200)}); set run.cuda_graphs=false"
            ) from error
        finally:
            torch.set_autocast_cache_enabled(caching)
            saved.put_back()


def _waits(network: nn.Module, images: Tensor) -> bool:
    """Whether the host waits for the GPU in a forward or a backward pass.

    A recording would break off there, and leave torch's random generator unusable.
    """
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        logits = network(images)
        asking = [x for x in (images, *network.parameters()) if x.requires_grad]
        if logits.requires_grad:
            torch.autograd.grad(logits, asking, torch.ones_like(logits), allow_unused=True)
    except RuntimeError as error:
        if "synchroniz" in str(error):
            return True
        raise
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return False


class _AtOneHead(nn.Module):
    """An adapter as a function of images alone."""

    def __init__(self, network: nn.Module, at_head: bool) -> None:
        super().__init__()
        self.network, self.at_head = network, at_head
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, at_head=self.at_head)
