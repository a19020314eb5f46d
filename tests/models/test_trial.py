"""Networks that cannot compute what a recipe asks of them: one line at its key, before the first step."""

import pytest
import torch
from torch import nn

from segkd import builders
from segkd.data import catalogue
from segkd.evaluation.evaluate import predict
from segkd.foundation.errors import RecipeError, TeacherError
from segkd.models.adapters import Adapter, flops_of
from segkd.models.building import create_network
from segkd.models.family import Sizes
from segkd.models.taps import FeatureTap, few_statistics
from segkd.models.teacher import Teacher
from segkd.models.trial import try_measured, try_passes

CPU = torch.device("cpu")
SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "decoder_channels": 16}


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    return create_network("UPerNet", "tu-swin_tiny_patch4_window7_224", 3, SWIN)


def test_a_network_of_one_size_names_the_keys_that_choose_it(swin):
    for adapter in (Adapter(swin, 3), Teacher(swin, "abc", [0.5] * 3, [0.5] * 3)):
        with pytest.raises(RecipeError, match=r"^teacher: UPerNet cannot compute images of 64x64: .*224") as caught:
            try_passes(adapter, "teacher", "UPerNet", (64, 64), 2, CPU, False)
        advice = "it was made for 224x224: set synth.size=[224, 224], or teacher.options={img_size: [64, 64]}"
        assert str(caught.value).endswith(advice)
        assert "\n" not in str(caught.value)


def test_it_is_one_line_where_it_is_measured_too(swin):
    images = [torch.zeros(64, 96, 3, dtype=torch.uint8).numpy()]
    with pytest.raises(TeacherError, match="^the network cannot compute an image of 64x96 pixels: .*--slide HxW"):
        predict(Adapter(swin, 3), images, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(TeacherError, match="^data.name: the student cannot compute the images of 64x96"):
        try_measured(Adapter(swin, 3), "student", (64, 96), CPU)


class Pooling(nn.Module):
    """BatchNorm of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))

    def forward(self, x):
        return x + self.layers(x)


def test_a_batch_of_one_is_told_at_its_key_and_two_will_do():
    network = Adapter(Pooling(), 3, sizes=Sizes(1))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(RecipeError, match=r"^run.batch: one image is too few .*; set run.batch=2$"):
        try_passes(network, "student", "it", (8, 8), 1, CPU, False)
    try_passes(network, "student", "it", (8, 8), 2, CPU, False)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("maps", "last", "kind"),
    [(4, nn.Softmax(1), "softmax"), (4, nn.Sigmoid(), "sigmoid"), (1, nn.Sigmoid(), "sigmoid")],
)
def test_probabilities_are_no_logits(maps, last, kind):
    """A network is refused with what to do, and taken where the recipe says what it gives; small logits are none."""
    network, norm = nn.Sequential(nn.Conv2d(3, maps, 1), last), [0.5] * 3
    names = "abcd" if maps == 4 else "ab"
    with pytest.raises(
        TeacherError, match=f"gives probabilities, and no logits: leave its {kind} out, or set teacher.output"
    ):
        try_passes(Teacher(network, names, norm, norm, Sizes(1)), "teacher", "it", (8, 8), 1, CPU, False)
    teacher = Teacher(network, names, norm, norm, Sizes(1), probabilities=True)
    try_passes(teacher, "teacher", "it", (8, 8), 1, CPU, False)
    images = torch.randn(2, 3, 8, 8)
    given = network(images)
    wanted = torch.cat([1 - given, given], 1) if maps == 1 else given / given.sum(1, keepdim=True)
    torch.testing.assert_close(teacher(images).softmax(1), wanted)
    with torch.no_grad():
        network[0].weight.mul_(0.01), network[0].bias.fill_(0.5)
    try_passes(Teacher(network[0], names, norm, norm, Sizes(1)), "teacher", "it", (8, 8), 1, CPU, False)


def test_a_network_that_says_the_same_of_all_images_is_not_taken_for_one_that_ends_in_a_sigmoid():
    network = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        network.weight.mul_(1e-9), network.bias.copy_(torch.tensor([0.05, 0.02, 0.03, 0.01]))
    try_passes(Teacher(network, "abcd", [0.5] * 3, [0.5] * 3, Sizes(1)), "teacher", "it", (8, 8), 1, CPU, False)


def test_a_network_that_lets_no_gradient_through_is_told():
    class Cut(nn.Conv2d):
        def forward(self, images):
            return super().forward(images).detach()

    cut = Adapter(Cut(3, 4, 1), 4, sizes=Sizes(1))
    with pytest.raises(TeacherError, match="no gradient comes back from its logits to its images; leave detach"):
        try_passes(cut, "teacher", "it", (8, 8), 1, CPU, False)
    try_passes(cut, "teacher", "it", (8, 8), 1, CPU, False, follows=False)


def test_the_number_of_maps_is_that_of_the_classes():
    with pytest.raises(TeacherError, match="gives 4 maps for 3 classes"):
        try_passes(Adapter(nn.Conv2d(3, 4, 1), 3, sizes=Sizes(1)), "teacher", "it", (8, 8), 1, CPU, False)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_game_of_one_image_a_batch(tiny, batch):
    """DeepLab pools to one pixel."""
    if batch == 1:
        with pytest.raises(RecipeError, match="^run.batch: one image"):
            tiny.game("ddad.segkd", "run.batch=1")
    else:
        tiny.game("ddad.segkd", "run.batch=2")


def test_a_dpt_distils(tiny):
    """Its encoder gives lists within a tuple, which no term looks at, and its decoder more than maps."""
    torch.manual_seed(0)
    options = {"dynamic_img_size": True, "embed_dim": 32, "num_heads": 2, "decoder_fusion_channels": 8, "decoder_intermediate_channels": [8, 8, 8, 8]}  # fmt: skip
    network = create_network("DPT", "tu-vit_tiny_patch16_224", 11, options)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(2, 3, 32, 64))
    recipe = tiny.recipe("ddad.segkd")
    teacher = Teacher(network, catalogue.classes_of("camvid").names, recipe.teacher.mean, recipe.teacher.std)
    game = builders.distiller_of(recipe, teacher, CPU, False)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in game.play(0).values())
    with FeatureTap(network.eval(), ("encoder",)).open() as maps:
        network(torch.randn(1, 3, 32, 64))
    assert maps[0].dim() == 4


def test_a_network_without_maps_is_told_of_where_a_term_looks():
    network = nn.ModuleDict({"encoder": nn.Linear(3, 3)})
    with FeatureTap(network, ("encoder",)).open(), pytest.raises(TeacherError, match="Linear gives no .N,C,H,W. maps"):
        network["encoder"](torch.ones(2, 3))


def test_statistics_that_few_layers_keep_are_told():
    norms = [nn.LayerNorm(4) for _ in range(30)]
    [line] = few_statistics(nn.Sequential(nn.BatchNorm2d(4), *norms))
    assert "1 of 31 normalisation layers" in line
    assert not few_statistics(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.LayerNorm(4)))


class OwnNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x) + torch.ones(4, 1, 1)


def test_operations_of_a_network_that_makes_numbers_are_counted():
    assert flops_of(OwnNumbers(), 4, 6) == flops_of(nn.Conv2d(3, 4, 1), 4, 6)


def test_a_forward_that_takes_no_images_is_a_fault_of_the_network():
    class Named(nn.Conv2d):
        def forward(self, *, images):
            return super().forward(images)

    how = "forward.. takes 1 positional argument .*; its forward has to take images .N,C,H,W. as its one argument"
    with pytest.raises(TeacherError, match=f"^teacher: it: .*{how}$"):
        try_passes(
            Teacher(Named(3, 3, 1), "abc", [0.5] * 3, [0.5] * 3, Sizes(1)), "teacher", "it", (8, 8), 2, CPU, False
        )


def test_a_network_of_no_numbers_computes_on_the_cpu():
    class Same(nn.Module):
        def forward(self, images):
            return images

    assert Teacher(Same(), "abc", [0.5] * 3, [0.5] * 3, Sizes(1)).device == CPU
    assert Teacher(nn.Conv2d(3, 3, 1), "abc", [0.5] * 3, [0.5] * 3, Sizes(1)).to("meta").device.type == "meta"
