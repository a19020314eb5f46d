"""Procedural rooms: exact, varied, balanced, and not to be solved by colour."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.procedural.room import shell
from segkd.procedural.room.blocks import Block, draw, painters_order
from segkd.procedural.room.camera import Camera, Label, Light
from segkd.procedural.room.furnish import furnish
from segkd.procedural.room.plan import Plan
from segkd.procedural.room.setting import choose_camera, choose_light, choose_room
from segkd.procedural.rooms import ROOM_NAMES, ROOM_PALETTE, render

CLASSES = len(ROOM_NAMES)
DIM = Light((1.0, 2.0, 1.0), 1.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def rooms() -> tuple[np.ndarray, np.ndarray]:
    """Images (500, 96, 128, 3) and masks (500, 96, 128)."""
    images, masks = zip(*(render(seed) for seed in range(500)), strict=True)
    return np.stack(images), np.stack(masks)


def furnished(seed: int, size: tuple[int, int] = (96, 128)) -> Plan:
    """A room with its furniture, as `render` begins."""
    rng = np.random.default_rng(seed)
    room = choose_room(rng)
    return furnish(rng, room, choose_camera(rng, size, room), 0.8)


def test_names_and_palette_are_distinct() -> None:
    assert len(set(ROOM_NAMES)) == len(set(ROOM_PALETTE)) == len(ROOM_NAMES) == len(ROOM_PALETTE) >= 8
    assert (0, 0, 0) not in ROOM_PALETTE  # black is void


def test_a_seed_gives_the_same_bytes(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in (499, 3, 120):  # in another order than the fixture
        image, mask = render(seed)
        assert image.tobytes() == rooms[0][seed].tobytes() and mask.tobytes() == rooms[1][seed].tobytes()


def test_seeds_give_different_rooms(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    assert len({image.tobytes() for image in rooms[0]}) == len({mask.tobytes() for mask in rooms[1]}) == 500


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (33, 250), (200, 41), (7, 9), (1, 1), (480, 640)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        image, mask = render(seed, size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert mask.shape == size and mask.dtype == np.uint8 and mask.flags.c_contiguous and mask.max() < CLASSES


@pytest.mark.parametrize("seed", range(6))
def test_a_larger_size_shows_the_same_room(seed: int) -> None:
    small, large = render(seed, (96, 128))[1], render(seed, (384, 512))[1]
    assert (small == large[2::4, 2::4]).mean() > 0.93


def test_class_shares(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    shares = np.bincount(rooms[1].ravel(), minlength=CLASSES) / rooms[1].size
    assert 0.003 <= shares.min() <= 0.02
    assert shares.max() < 0.4


def test_every_class_is_often_there(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    seen = np.stack([np.bincount(mask.ravel(), minlength=CLASSES) >= 30 for mask in rooms[1]])
    assert seen.mean(0).min() > 0.28
    assert (seen.sum(1) >= 6).mean() > 0.7


def test_light_and_viewpoint_vary(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = rooms
    low, high = np.percentile(images.mean((1, 2, 3)), (10, 90))
    assert high - low > 45
    assert (images[..., 0].astype(float) - images[..., 2]).mean((1, 2)).std() > 10
    floor = masks == Label.FLOOR
    assert floor.mean((1, 2)).std() > 0.07 and floor.any(2).argmax(1).std() > 6
    cameras = [furnished(seed).camera for seed in range(40)]
    assert np.std([np.arctan2(camera.axes[2, 0], camera.axes[2, 2]) for camera in cameras]) > 0.2
    assert np.std([camera.zoom for camera in cameras]) > 0.05


def test_colour_alone_does_not_give_the_classes_away(rooms: tuple[np.ndarray, np.ndarray]) -> None:
    """A Bayes classifier on a 16x16x16 colour histogram, fitted on 300 rooms, judged on 200 others."""
    red, green, blue = np.moveaxis(rooms[0].astype(np.int64) >> 4, -1, 0)
    colours, masks = (red * 16 + green) * 16 + blue, rooms[1].astype(np.int64)
    counts = np.bincount((colours * CLASSES + masks)[:300].ravel(), minlength=4096 * CLASSES).reshape(4096, CLASSES)
    for scores in (counts, counts / counts.sum(0)):  # with and without the classes' frequencies
        guess = scores.argmax(1)[colours[300:]]
        matrix = np.bincount((masks[300:] * CLASSES + guess).ravel(), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        hits = np.diag(matrix)
        assert (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean() <= 0.40


def traced(camera: Camera, blocks: list[Block]) -> np.ndarray:
    """(H, W): which block each pixel's ray meets first, by its six planes; 255 where none."""
    rays = np.moveaxis(camera.rays().astype(np.float64), 0, -1)[:, :, None]
    low, high = (np.array([getattr(block, end) for block in blocks]) for end in ("low", "high"))
    with np.errstate(divide="ignore"):
        near, far = (low - camera.eye) / rays, (high - camera.eye) / rays
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    distance = np.where((enter <= leave) & (enter > 0), enter, np.inf)
    return np.where(np.isfinite(distance.min(-1)), distance.argmin(-1), 255)


@pytest.mark.parametrize("seed", range(8))
def test_blocks_are_seen_where_rays_meet_them(seed: int) -> None:
    """The drawing against ray tracing, block by block; within a pixel of an edge both may be right."""
    plan = furnished(seed, (144, 192))
    blocks = [block for block in plan.blocks if block.shape in ("box", "glow")][:250]
    numbered = [block._replace(label=index) for index, block in enumerate(blocks)]
    canvas = np.full((144, 192, 4), 255, np.uint8)
    draw(canvas, plan.camera, numbered, DIM)
    wanted = traced(plan.camera, blocks).astype(np.uint8)
    clear = cv2.dilate(wanted, np.ones((3, 3))) == cv2.erode(wanted, np.ones((3, 3)))
    assert clear.mean() > 0.5 and (wanted != 255).any()
    assert (canvas[..., 3] == wanted)[clear].mean() > 0.995
    assert (canvas[..., 3] == wanted).mean() > 0.9


@pytest.mark.parametrize("seed", range(12))
def test_each_face_is_as_bright_as_the_light_falls_on_it(seed: int) -> None:
    """One box from any side: the face that a ray enters by, lit by the formula at its middle."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(-1.0, -0.4, 3), rng.uniform(0.4, 1.0, 3)
    eye = rng.normal(size=3)
    eye *= 4 / np.linalg.norm(eye)
    yaw, pitch = np.arctan2(-eye[0], -eye[2]), np.arcsin(-eye[1] / 4)
    camera = Camera.looking((96, 128), 1.0, tuple(eye), yaw, pitch, 0.3)
    light = Light((1.2, 1.6, -1.4), 0.2, 1.0, 3.0)
    canvas = np.zeros((96, 128, 4), np.uint8)
    draw(canvas, camera, [Block(tuple(low), tuple(high), np.full(3, 240.0), Label.BED)], light)
    rays = np.moveaxis(camera.rays().astype(np.float64), 0, -1)
    near, far = (low - eye) / rays, (high - eye) / rays
    enter = np.minimum(near, far)
    axis = enter.argmax(-1)
    clear = cv2.dilate(axis.astype(np.uint8), np.ones((5, 5))) == cv2.erode(axis.astype(np.uint8), np.ones((5, 5)))
    clear &= enter.max(-1) < np.maximum(near, far).min(-1) - 0.002
    for k in range(3):
        sign = np.sign(eye[k])
        middle = 0.5 * (low + high)
        middle[k] = high[k] if sign > 0 else low[k]
        away = np.array(light.source) - middle
        slant = max(sign * away[k], 0.0) / np.linalg.norm(away)
        wanted = 240 * (0.2 + (0.3 + 0.7 * slant) / (1 + away @ away / 9))
        found = canvas[..., 0][clear & (axis == k)].astype(float)
        assert np.abs(found - min(wanted, 255)).max(initial=0) <= 1.5
    assert clear.sum() > 500


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_box_covers_what_stands_before_it(seed: int) -> None:
    """Boxes in the cells of a grid, some of them touching: along any ray the nearer one is drawn later."""
    rng = np.random.default_rng(seed)
    cells = np.array(list(itertools.product(range(3), repeat=3)))[rng.permutation(27)[:10]]
    low, high = cells + rng.choice((0.0, 0.2), (10, 3)), cells + rng.choice((1.0, 0.7), (10, 3))
    eye = rng.uniform(-1, 4, 3)
    if ((low < eye) & (eye < high)).all(1).any():
        return
    order = painters_order(low, high, eye)
    assert sorted(order) == list(range(10))
    place = np.argsort(order)
    for target in rng.uniform(0, 3, (60, 3)):
        with np.errstate(divide="ignore"):
            near, far = (low - eye) / (target - eye), (high - eye) / (target - eye)
        enter, leave = np.minimum(near, far).max(1), np.maximum(near, far).min(1)
        met = np.flatnonzero((enter < leave - 1e-6) & (enter > 0))
        assert (np.diff(place[met[np.argsort(enter[met])]]) < 0).all()


def test_the_bare_room_is_seen_where_its_points_lie() -> None:
    """Points on the six sides, sent through the camera, fall on pixels of their side's label."""
    checked = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        room = choose_room(rng)
        camera = choose_camera(rng, (96, 128), room)
        canvas = np.zeros((96, 128, 4), np.uint8)
        shell.paint(canvas, camera, room, DIM)
        for axis, side in itertools.product(range(3), (0, 1)):
            points = rng.uniform(0.1, 0.9, (50, 3)) * room.size
            points[:, axis] = side * room.size[axis]
            view = camera.view(points)
            columns, rows = np.rint(camera.pixels(view)).astype(int).T
            inside = (view[:, 2] > 0.3) & (rows >= 0) & (rows < 96) & (columns >= 0) & (columns < 128)
            label = (Label.FLOOR, Label.CEILING)[side] if axis == 1 else Label.WALL
            assert (canvas[rows[inside], columns[inside], 3] == label).all()
            checked |= {(axis, side)} if inside.any() else set()
    assert len(checked) >= 5  # the wall behind the camera is hardly ever seen


def test_camera_by_hand() -> None:
    """Level and straight: similar triangles. Turned, raised and rolled: where its axes point."""
    camera = Camera.looking((96, 128), 1.0, (1.0, 1.5, 0.0), 0.0, 0.0, 0.0)
    assert camera.pixels(camera.view(np.array((1.0, 1.5, 2.0)))) == pytest.approx((63.5, 47.5))
    assert camera.pixels(camera.view(np.array((1.5, 1.0, 2.0)))) == pytest.approx((63.5 + 24, 47.5 + 24))
    right = Camera.looking((96, 128), 1.0, (0.0, 0.0, 0.0), np.pi / 2, 0.0, 0.0)
    assert right.view(np.array((3.0, 0.0, 0.0))) == pytest.approx((0, 0, 3), abs=1e-12)
    up = Camera.looking((96, 128), 1.0, (0.0, 0.0, 0.0), 0.0, np.pi / 2, 0.0)
    assert up.view(np.array((0.0, 3.0, 0.0))) == pytest.approx((0, 0, 3), abs=1e-12)
    rolled = Camera.looking((96, 128), 1.0, (0.0, 0.0, 0.0), 0.0, 0.0, np.pi / 2)
    assert rolled.view(np.array((0.0, -3.0, 0.0))) == pytest.approx((3, 0, 0), abs=1e-12)


def test_what_reaches_behind_the_camera_is_cut_off_there() -> None:
    camera = Camera.looking((96, 128), 1.0, (0.0, 1.0, 0.0), 0.0, 0.0, 0.0)
    strip = np.array(((-0.5, 0.0, 4.0), (0.5, 0.0, 4.0), (0.5, 0.0, -4.0), (-0.5, 0.0, -4.0)))
    outline = camera.outline(camera.view(strip))
    assert len(outline) == 4 and outline[:, 1].max() > 96  # it leaves the picture below
    assert np.ptp(outline[outline[:, 1] > 96, 0]) > np.ptp(outline[outline[:, 1] < 96, 0])  # and widens on its way
    assert len(camera.outline(camera.view(strip - (0, 0, 5)))) == 0


def test_posts_keep_their_width_and_things_shrink_with_distance() -> None:
    camera = Camera.looking((96, 128), 1.0, (0.0, 1.0, 0.0), 0.0, 0.0, 0.0)
    widths = {}
    for shape, wide, z in (("box", 0.4, 2.0), ("box", 0.4, 6.0), ("box", 0.02, 6.0), ("post", 0.02, 6.0)):
        canvas = np.zeros((96, 128, 4), np.uint8)
        low, high = (-0.5 * wide, 0.2, z), (0.5 * wide, 1.6, z + 0.04)
        draw(canvas, camera, [Block(low, high, np.full(3, 200.0), Label.TABLE, shape)], DIM)
        widths[shape, wide, z] = int((canvas[48, :, 3] > 0).sum())
        assert ((canvas[..., 3] > 0) == (canvas[..., 0] > 0)).all()  # colour and label cover the same pixels
    assert widths["box", 0.4, 2.0] in (19, 20) and widths["box", 0.4, 6.0] in (6, 7, 8)
    assert widths["box", 0.02, 6.0] < 3 <= widths["post", 0.02, 6.0] <= 4


def test_what_faces_the_light_or_is_nearer_to_it_is_brighter() -> None:
    light = Light((0.0, 2.0, 0.0), 0.4, 0.8, 2.0)
    near, far = light.falling(np.array((1.0, 9.0)), np.array((1.0, 1.0)))
    facing, aside, behind = light.falling(np.full(3, 4.0), np.array((2.0, 1.0, -2.0)))
    assert near > far > 0.4 and facing > aside > behind > 0.4


@pytest.mark.parametrize("seed", range(30))
def test_furniture_has_room(seed: int) -> None:
    plan = furnished(seed)
    wide, high, deep = plan.room.size
    for block in plan.blocks:
        assert all(low < top for low, top in zip(block.low, block.high, strict=True))
        assert min(block.low) > -0.07 and (np.array(block.high) < np.array((wide, high, deep)) + 0.07).all()
    for one, other in itertools.combinations(plan.standing, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for one, other in itertools.combinations(plan.along, 2):
        assert (
            one[0] != other[0] or one[2] <= other[1] or other[2] <= one[1] or one[4] <= other[3] or other[4] <= one[3]
        )


def test_an_empty_room() -> None:
    plan = furnished(0)
    canvas = np.zeros((96, 128, 4), np.uint8)
    light = choose_light(np.random.default_rng(0), plan.room, [], 0.9)  # by day, but without a window
    shell.paint(canvas, plan.camera, plan.room, light)
    before = canvas.copy()
    shell.cast_shadows(canvas, plan.camera, [], light)
    draw(canvas, plan.camera, [], light)
    assert np.array_equal(canvas, before) and set(np.unique(canvas[..., 3])) <= {0, 1, 2}


def test_shadows_darken_the_floor_alone() -> None:
    plan = furnished(1)
    canvas = np.zeros((96, 128, 4), np.uint8)
    shell.paint(canvas, plan.camera, plan.room, DIM)
    before = canvas.copy()
    wide, _, deep = plan.room.size
    shell.cast_shadows(canvas, plan.camera, [(0.3 * wide, 0.5 * deep, 0.7 * wide, deep)], DIM)
    darker = (canvas[..., :3] < before[..., :3]).any(-1)
    assert darker.mean() > 0.03 and (canvas[..., 3] == before[..., 3]).all()
    assert (before[darker][:, 3] == Label.FLOOR).all() and (canvas <= before).all()
