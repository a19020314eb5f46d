"""One side of the game: a network with its optimiser, schedule and moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segkd.machine import ranks, waiting
from segkd.machine.snapshot import Snapshot
from segkd.players.refusals import Verdict
from segkd.players.schedule import constant


@dataclass
class Player:
    """A network with its optimiser, learning rate and exponential moving average.

    Args:
        make_optimizer: makes the optimiser of parameters, such as `partial(torch.optim.Adam, lr=1e-3, fused=True)`. It has to
            be fused: of torch's optimisers only those leave out an update that the device has refused.
        lr_factor: of the learning rate at a step, a function of the step alone, so that there is no state to save.
        ema_decay: per accepted update, of an average of parameters and floating-point buffers; 0: no average. A young average
            decays faster, by n/(n+9) after n updates. So it reaches over the last tenth of them or so, and has forgotten the
            first steps even in a short run.
        clip: largest gradient norm; None: not clipped.
        shared: several processes train one network, by the means of their gradients. False: each trains its own, such as the
            images that it refines; an update that one process refuses is refused by all in either case.

    Attributes:
        average: the averaged network; None without one.
        version: grows whenever the weights may have changed.
    """

    name: str
    network: nn.Module
    make_optimizer: Callable[..., torch.optim.Optimizer]
    lr_factor: Callable[[int], float] = constant
    ema_decay: float = 0.0
    clip: float | None = None
    shared: bool = True
    optimizer: torch.optim.Optimizer = field(init=False)
    average: AveragedModel | None = field(init=False, default=None)
    version: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.optimizer = self.make_optimizer([p for p in self.network.parameters() if p.requires_grad])
        if not self.optimizer.defaults.get("fused"):
            raise ValueError(
                f"{self.name}: an optimiser that is not fused cannot leave out a refused update: pass fused=True"
            )
        if self.ema_decay > 0:
            device = next(self.network.parameters()).device
            self.average = AveragedModel(self.network, device)
            self.average.requires_grad_(False)
            self._floats = _tensors(self.average.module, True), _tensors(self.network, True)
            self._integers = _tensors(self.average.module, False), _tensors(self.network, False)

    def add_parameters(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let the optimiser train further parameters, beside the network's: those of a method, say."""
        self.optimizer.add_param_group({"params": list(parameters)})

    @property
    def ema_or_live(self) -> nn.Module:
        """The averaged network where there is an average, else the live one."""
        return self.average.module if self.average is not None else self.network

    def update(self, loss: Tensor, step: int, buffers: Snapshot, sound: Tensor | None = None) -> Verdict:
        """One optimiser step on `loss`, refused where it or its gradients are not finite, or `sound` () is false.

        A refused step changes nothing of the player, and `buffers`, as they were before the forward pass, are put back. With
        several processes all refuse what one refuses. On a GPU that is decided on the device, and nobody waits for it.
        """
        self.version += 1
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        value = loss.detach().to(parameters[0].dtype)
        # NaN stands for a refusal, and stays NaN in the mean: the exchange of gradients carries the votes along.
        vote = value if sound is None else torch.where(sound, value, math.nan)
        if self.shared:
            *gradients, vote = ranks.all_mean([*gradients, vote])
        norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
        refused = ~(vote.isfinite() & norm.isfinite())
        if not self.shared:
            refused = ranks.anywhere(refused)
        verdict = Verdict(refused, lambda: _why(value, vote, norm))
        if waiting.on_cpu(refused) and refused:
            buffers.put_back()
            return verdict
        scale = None if self.clip is None else (self.clip / (norm + 1e-6)).clamp(max=1)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and not same_layout(gradient, parameter):
                # Fused optimisers go over memory as it lies: they would move each weight by another one's gradient.
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient if gradient is None or scale is None else gradient * scale
        for group in self.optimizer.param_groups:
            group["lr"] = self.optimizer.defaults["lr"] * self.lr_factor(step)
        self._begin_momentum(parameters)
        self.optimizer.found_inf = refused.float()  # fused optimisers change nothing where it is 1
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        buffers.put_back(refused)
        if self.average is not None:
            self.update_average(refused)
        return verdict

    def _begin_momentum(self, parameters: list[Tensor]) -> None:
        """SGD would take whatever lies in memory for the momentum, if its first step is one that is refused."""
        if self.optimizer.defaults.get("momentum") and not self.optimizer.state:
            for parameter in parameters:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def update_average(self, refused: Tensor) -> None:
        """Move the average towards the network, which it copies at first, unless the step was refused.

        Integers, such as BatchNorm's counts of batches, are copied: they mean nothing on average.
        """
        count = self.average.n_averaged
        averages, numbers = self._floats
        pace = (9 / (9 + count)).clamp(min=1 - self.ema_decay)
        if waiting.on_cpu(refused):
            torch._foreach_lerp_(averages, numbers, pace.item())
        else:
            gaps = torch._foreach_sub(numbers, averages)
            torch._foreach_mul_(gaps, pace * ~refused)
            torch._foreach_add_(averages, gaps)
        if self._integers[0]:
            torch._foreach_copy_(*self._integers)
        count += ~refused

    def state(self) -> dict:
        """All that the player is: weights, buffers, optimiser, average."""
        average = self.average.state_dict() if self.average is not None else {}
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "average": average}

    def restore(self, state: dict) -> None:
        """Become what `state()` described. Raises KeyError, RuntimeError or ValueError if that was another player."""
        self.version += 1
        self.network.load_state_dict(state["network"])
        # The settings are this run's: a change of the recipe that was accepted must not be undone.
        own, saved = self.optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"]
        if [group.keys() for group in own] != [group.keys() for group in saved]:
            raise ValueError("another kind of optimiser")
        groups = [{**mine, "lr": old["lr"]} for mine, old in zip(own, saved, strict=True)]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _why(loss: Tensor, vote: Tensor, norm: Tensor) -> str:
    """Why a step was refused, as this process saw it."""
    if not vote.isfinite():
        return f"loss is {loss.item():.3g}{' here, and not finite in another process' if loss.isfinite() else ''}"
    if norm.isfinite():
        return "loss and gradients are finite here, and not in another process"
    return f"gradient norm is {norm.item():.3g}"


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order; the stride of a single row means nothing."""
    return all(a == b or side == 1 for a, b, side in zip(one.stride(), other.stride(), one.shape, strict=True))


def _tensors(network: nn.Module, numbers: bool) -> list[Tensor]:
    """Parameters and buffers that hold numbers, or those that count."""
    return [x for x in (*network.parameters(), *network.buffers()) if x.is_floating_point() == numbers]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the network's parameters inside the block: they are neither kept nor computed."""
    asking = [p for p in network.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
