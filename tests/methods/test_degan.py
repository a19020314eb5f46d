"""DeGAN: what the generator and its critic learn from whom."""

import pytest
import torch
from torch.nn.functional import softplus

from segkd.foundation.errors import UsageError
from segkd.methods.degan import coloured
from segkd.training.networks import TermsJudge


def slopes(game, x):
    """The gradients of `gan` by the images, and by the critic's weights."""
    value = game.method.gan(game.networks.view({"x": x}))
    return torch.autograd.grad(value, [x, *game.method.critic.parameters()])


def test_each_half_moves_its_own(tiny):
    game = tiny.game("degan")
    torch.manual_seed(0)
    x, proxies = torch.randn(2, 3, 32, 64, requires_grad=True), torch.randn(2, 3, 32, 64)
    game.method.proxies, critic = proxies, game.method.critic
    to_images, *to_critic = slopes(game, x)
    torch.testing.assert_close(to_images, torch.autograd.grad(softplus(-critic(x)).mean(), x)[0])
    told = softplus(-critic(proxies)).mean() + softplus(critic(x.detach())).mean()
    for got, wanted in zip(to_critic, torch.autograd.grad(told, list(critic.parameters())), strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_critic_learns_to_tell_them_apart_with_the_generator(tiny):
    game = tiny.game("degan", "weights.rare=0")
    before, judged = tiny.hash(game.method.critic), TermsJudge.__call__
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            TermsJudge, "__call__", lambda judge, batch: shown.append(game.method.proxies) or judged(judge, batch)
        )
        for step in range(2):
            game.moves["source"](step, 0)
    assert tiny.hash(game.method.critic) != before and not torch.equal(*shown) and shown[0].shape == (2, 3, 32, 64)
    assert len(game.source.player.optimizer.param_groups) == 2


def test_images_of_other_channels_are_looked_at_in_grey():
    grey, wide = torch.randn(2, 1, 4, 5), torch.randn(2, 6, 4, 5)
    assert torch.equal(coloured(grey), grey.expand(2, 3, 4, 5))
    torch.testing.assert_close(coloured(wide), wide.mean(1, keepdim=True).expand(2, 3, 4, 5))


@pytest.mark.parametrize("mix", ["{pictures: null}", "{pictures: 0.25, noise: 0.5}"])
def test_it_needs_one_kind_of_proxies(tiny, mix):
    with pytest.raises(UsageError, match=r"^synth\.mix: degan needs one source of proxy images beside the generator"):
        tiny.game("degan", f"synth.mix={mix}", "run.batch=4")


def test_without_a_critic_no_proxies_are_asked_for(tiny):
    game = tiny.game("degan", "weights.gan=0", "synth.mix={pictures: null}", "run.batch=4")
    assert game.play(0)["rare"] > 0 and not list(game.method.parameters())
