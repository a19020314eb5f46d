"""The plain loop of data-free adversarial distillation: what segkd's speed and memory are measured against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STUDENT_MOVES = 5


class Reference:
    """DFAD's published schedule (arXiv:1912.11006), as a first implementation writes it down.

    A step is five moves of the student, each on images of fresh latents, and then one of the generator. All is fp32 in
    the default memory format; the graphs of generator and teacher are recorded also where nobody asks for their
    gradients, and logits are compared at the images' size.

    Args:
        teacher, student: images (N,3,H,W) to logits (N,C,H,W).
        generator: latents (N,latent) and a size (H,W) to images.
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, generator: nn.Module, *, latent: int, size: tuple[int, int],
        batch: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.teacher, self.student, self.generator = teacher.eval(), student.train(), generator.train()
        self.latent, self.size, self.batch, self.device = latent, size, batch, device
        self.student_optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)

    def play(self) -> None:
        """One step."""
        for _ in range(STUDENT_MOVES):
            images = self.images().detach()
            gap = F.l1_loss(self.student(images), self.teacher(images).detach())
            self.student_optimizer.zero_grad()
            gap.backward()
            self.student_optimizer.step()
        images = self.images()
        gain = torch.log1p(F.l1_loss(self.student(images), self.teacher(images)))
        self.generator_optimizer.zero_grad()
        (-gain).backward()
        self.generator_optimizer.step()

    def images(self) -> Tensor:
        """A batch (N,3,H,W) of the generator, on fresh latents."""
        return self.generator(torch.randn(self.batch, self.latent, device=self.device), self.size)
