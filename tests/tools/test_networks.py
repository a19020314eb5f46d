"""The page of smp's networks is what was found, of all that the installed smp has; and what was found is found again."""

import json
import re

import pytest

from segkd.recipe import networks as named
from tools import networks

KNOWN = json.loads(networks.FOUND.read_text("utf-8"))
FOUND, VERSIONS = KNOWN["found"], KNOWN["versions"]
same_libraries = pytest.mark.skipif(networks.versions() != VERSIONS, reason=f"found with {VERSIONS}")


def test_the_page_is_current():
    assert networks.PAGE.read_text("utf-8") == networks.page(FOUND, VERSIONS), "python tools/networks.py"


@same_libraries
def test_every_network_of_smp_was_tried():
    assert list(FOUND) == [*named.encoders(), *networks.OF_TIMM]
    assert all(list(ends) == networks.architectures() for ends in FOUND.values())


def test_all_that_smp_builds_can_be_distilled():
    assert not [end for ends in FOUND.values() for end in ends.values() if end.startswith("fails: ")]


@same_libraries
@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("Unet", "tu-resnet10t"), ("PAN", "mobilenet_v2"), ("DPT", "tu-vit_tiny_patch16_224"), ("UPerNet", "mit_b0"), ("DeepLabV3", "vgg11")],
)  # fmt: skip
def test_one_of_each_outcome_is_found_again(arch, encoder):
    assert networks.outcome(arch, encoder) == FOUND[encoder][arch]


def test_a_network_that_ends_its_process_is_told_and_the_others_are_tried(monkeypatch):
    dies = "import os, sys\nfor arch in sys.argv[3:]:\n    print(arch, flush=True)\n    arch == 'FPN' and os.abort()\n    print('yes: 1 of 1')\n"
    monkeypatch.setattr(networks, "TRY", dies)
    ends = networks.tried("resnet18")
    assert ends.pop("FPN") == "fails: ends the process" and set(ends.values()) == {"yes: 1 of 1"} and len(ends) == 11
    assert "- FPN with `resnet18` fails: ends the process" in networks.page(
        {"resnet18": {**ends, "FPN": "fails: ends the process"}}, VERSIONS
    )


def test_encoders_share_a_row_where_all_is_the_same():
    ends = dict.fromkeys(networks.architectures(), "yes: 3 of 3")
    some, none, bare = ({**ends, "Unet": f"yes: {norms}"} for norms in ("1 of 3", "0 of 3", "0 of 0"))
    text = networks.page(
        {"a": ends, "b": some, "c": ends, "d": none, "e": bare, "f": dict.fromkeys(ends, "no: why")}, VERSIONS
    )
    rows = dict(line[2:].split(" | ")[:2] for line in text.splitlines() if re.match(r"\| \d ", line))
    assert rows == {"1": "all", "2": "1 of 3", "3": "none", "4": "no layers", "5": "–"}
    assert text.endswith("\n- 1: `a`, `c`\n- 2: `b`\n- 3: `d`\n- 4: `e`\n- 5: `f`\n")


@same_libraries
@pytest.mark.slow
@pytest.mark.parametrize("encoder", FOUND)
def test_what_was_found_is_found_again(encoder):
    assert networks.tried(encoder) == FOUND[encoder]
