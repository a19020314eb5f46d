"""Kinds of image files, each with what it is as a mask and as an image: pixels, or words of a refusal."""

import struct

import numpy as np
from PIL import Image

from tests import pictures
from tests.pictures import GREY, PALETTE, RGB, RGBA, bmp, chunk, drawn, encoded, palette, photo, png, tiff


def levels(depth: int) -> np.ndarray:
    """All ids that so many bits can hold, and the same as the grey levels that they look like."""
    return (np.arange(9 * 13) % min(1 << depth, 200)).reshape(9, 13)


def looks(grey: np.ndarray) -> np.ndarray:
    return grey[..., None].repeat(3, 2).astype(np.uint8)


def exif(picture: np.ndarray, orientation: int, format: str = "PNG", **options: object) -> bytes:
    turned = Image.Exif()
    turned[0x0112] = orientation
    return encoded(picture, format, exif=turned, **options)


def xmp(orientation: int) -> bytes:
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode())


Outcome = np.ndarray | str | None  # the pixels, words of the refusal, or any pixels: a compression with loss
RGB8, GREY8 = photo(9, 13) * 4, photo(9, 13)[..., 0] * 4
RGB16 = RGB8.astype(np.uint16) * 257 + 1
TURNED, ALPHA, COLOURED, DARK = (
    "EXIF orientation",
    "alpha channel that is not opaque",
    "RGB mask: colour",
    "largest value is",
)
WRITTEN_BY_OTHERS = "neither PNG nor JPEG"
SHUFFLED = np.random.default_rng(2).integers(0, 256, (200, 3), dtype=np.uint8)
TWINS = np.full((200, 3), 7)  # all ids look alike
CMYK = encoded(Image.fromarray(RGB8).convert("CMYK"), "JPEG")

SIGNED, TURN, PLANES = [(339, 3, [2])], [(274, 3, [6])], [(284, 3, [2])]


def colour_map(depth: int) -> list[tuple[int, int, list[int]]]:
    """The entry of a TIFF that holds its palette: all reds, all greens, all blues, of 16 bits each."""
    table = np.zeros((1 << depth, 3), int)
    table[: len(SHUFFLED)] = SHUFFLED[: 1 << depth]
    return [(320, 3, (table.T * 257).reshape(-1).tolist())]


def grey(depth: int) -> np.ndarray:
    return looks(levels(depth) * (255 // (2**depth - 1)))


# TIFF, BMP and WebP: what a kind of file is, and what it is as a mask and as an image.
OTHERS: dict[str, tuple[bytes, Outcome, Outcome]] = {
    **{f"TIFF, grey, {depth} bits": (tiff(levels(depth), depth, 1), levels(depth), grey(depth)) for depth in (1, 2, 4, 8)},
    **{f"TIFF, palette, {depth} bits": (
        tiff(levels(depth), depth, 3, more=colour_map(depth)), levels(depth), SHUFFLED[levels(depth)]) for depth in (1, 2, 4, 8)},
    "TIFF, 0 is white": (tiff(levels(8), 8, 0), "in which 0 is white", looks(255 - levels(8))),
    "TIFF, 0 is white, 1 bit": (tiff(levels(1), 1, 0), "in which 0 is white", looks(255 - 255 * levels(1))),
    "TIFF, 0 is white, 16 bits": (tiff(levels(8) * 300, 16, 0), "0 is white", "0 is white"),
    **{f"TIFF, 16 bits, {name}": (tiff(levels(8) * 300, 16, 1, order=order), levels(8) * 300, looks(levels(8) * 300 >> 8))
       for name, order in (("Intel", "<"), ("Motorola", ">"))},
    "TIFF, 16 bits, small ids": (tiff(levels(4), 16, 1, order=">"), levels(4), DARK),
    **{f"TIFF, {name}": (tiff(levels(8), 8, 1, compression=number, **how), levels(8), looks(levels(8))) for name, number, how in (
        ("strips", 1, {"rows": 2}), ("deflate", 8, {"rows": 4}), ("tiles", 1, {"tile": (16, 16)}), ("small tiles", 8, {"tile": (16, 32)}))},
    **{f"TIFF by Pillow, {name}": (encoded(levels(8).astype(np.uint8), "TIFF", compression=name), levels(8), looks(levels(8)))
       for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate")},
    "TIFF, JPEG inside": (encoded(looks(GREY8), "TIFF", compression="jpeg", quality=100), "TIFF mask", looks(GREY8)),
    "TIFF, fax inside": (encoded(Image.fromarray(levels(1) > 0), "TIFF", compression="group4"), "compression 4", "compression 4"),
    "TIFF, RGB": (tiff(RGB8, 8, 2), COLOURED, RGB8),
    "TIFF, RGB that looks grey": (tiff(looks(levels(8)), 8, 2), levels(8), looks(levels(8))),
    "TIFF, RGB, 16 bits": (tiff(RGB16, 16, 2), COLOURED, RGB8),
    "TIFF, RGBA": (tiff(np.dstack([RGB8, GREY8]), 8, 2), ALPHA, RGB8),
    "TIFF, opaque RGBA that looks grey": (
        tiff(np.dstack([looks(levels(8)), looks(levels(8))[..., :1] * 0 + 255]), 8, 2), levels(8), looks(levels(8))),
    "TIFF, CMYK": (encoded(Image.fromarray(RGB8).convert("CMYK"), "TIFF"), "CMYK", "CMYK"),
    "TIFF, Lab": (tiff(RGB8, 8, 8), "of another kind", "of another kind"),
    "TIFF, five channels": (tiff(np.dstack([RGB8, GREY8, GREY8]), 8, 2), "5 channels", "5 channels"),
    "TIFF, floats": (encoded(Image.fromarray(levels(8).astype(np.float32)), "TIFF"), "floating", "floating"),
    "TIFF, signed": (tiff(levels(8), 8, 1, more=SIGNED), "signed", "signed"),
    "TIFF, 32 bits": (encoded(Image.fromarray(levels(8).astype(np.int32)), "TIFF"), "signed", "signed"),
    "TIFF, turned": (tiff(levels(8), 8, 1, more=TURN), TURNED, TURNED),
    "TIFF, planes": (tiff(np.vstack([looks(levels(8))[..., 0]] * 3).reshape(9, 13, 3), 8, 2, more=PLANES), "pieces", "pieces"),
    "TIFF, several pages": (tiff(levels(8), 8, 1, pages=2), "several pages", "several pages"),
    "TIFF with a smaller copy": (tiff(levels(8), 8, 1, pages=2, more=[(254, 4, [1])]), levels(8), looks(levels(8))),
    "BigTIFF": (b"II+\0" + bytes(60), "BigTIFF", "BigTIFF"),
    **{f"BMP, {depth} bits, {name}": (bmp(levels(depth), depth, SHUFFLED[: 1 << depth], downwards=down), levels(depth), SHUFFLED[levels(depth)])
       for depth in (1, 4, 8) for name, down in (("upwards", False), ("downwards", True))},
    "BMP, grey levels": (bmp(levels(8), 8, np.arange(256)[:, None].repeat(3, 1)), levels(8), looks(levels(8))),
    "BMP, black and white": (bmp(levels(1), 1, [(0, 0, 0), (255, 255, 255)]), levels(1), grey(1)),
    "BMP, white and black": (bmp(levels(1), 1, [(255, 255, 255), (0, 0, 0)]), levels(1), looks(255 - 255 * levels(1))),
    "BMP, RGB": (bmp(RGB8, 24), COLOURED, RGB8),
    "BMP, RGB that looks grey": (bmp(looks(levels(8)), 24), levels(8), looks(levels(8))),
    "BMP by Pillow": (encoded(levels(8).astype(np.uint8), "BMP"), levels(8), looks(levels(8))),
    "BMP, run lengths": (bmp(levels(8), 8, SHUFFLED)[:30] + b"\1\0\0\0" + bmp(levels(8), 8, SHUFFLED)[34:], "compression 1", "compression 1"),
    "BMP, 16 bits a pixel": (bmp(levels(8), 16), "BMP of 16 bits a pixel", "BMP of 16 bits a pixel"),
    "BMP of OS/2": (b"BM" + struct.pack("<IHHIIHHHH", 99, 0, 0, 26, 12, 2, 2, 1, 24) + bytes(73), "rare kind", "rare kind"),
    "WebP without loss": (encoded(RGB8, "WEBP", lossless=True), COLOURED, RGB8),
    "WebP without loss that looks grey": (encoded(looks(levels(8)), "WEBP", lossless=True), levels(8), looks(levels(8))),
    "WebP without loss, alpha": (encoded(np.dstack([RGB8, GREY8]), "WEBP", lossless=True, exact=True), ALPHA, RGB8),
    "WebP with loss": (encoded(looks(levels(8)), "WEBP"), "WEBP mask", None),
    "WebP with loss, alpha": (encoded(np.dstack([RGB8, GREY8]), "WEBP"), "WEBP mask", None),
    **{f"WebP turned {turn}": (exif(looks(levels(8)), turn, "WEBP", lossless=True), TURNED, TURNED) for turn in (3, 6)},
}  # fmt: skip
# What a kind of file is, and what it is as a mask and as an image.
KINDS: dict[str, tuple[bytes, Outcome, Outcome]] = {
    **{f"grey, {depth} bits": (drawn(levels(depth), depth, GREY), levels(depth), looks(levels(depth) * (255 // (2**depth - 1))))
       for depth in (1, 2, 4, 8)},
    **{f"palette, {depth} bits": (
        drawn(levels(depth), depth, PALETTE, before=palette(SHUFFLED[: 1 << depth])), levels(depth), SHUFFLED[levels(depth)]
    ) for depth in (1, 2, 4, 8)},
    "grey, 16 bits": (drawn(levels(8) * 300, 16, GREY), levels(8) * 300, looks(levels(8) * 300 >> 8)),
    "grey, 16 bits, small ids": (drawn(levels(4), 16, GREY), levels(4), DARK),
    "palette of twins": (drawn(levels(8), 8, PALETTE, before=palette(TWINS)), levels(8), TWINS[levels(8)]),
    "palette with transparency": (
        drawn(levels(8), 8, PALETTE, before=palette(SHUFFLED) + chunk(b"tRNS", bytes(200))), levels(8), SHUFFLED[levels(8)]
    ),
    "palette by Pillow": (encoded(Image.fromarray(levels(4).astype(np.uint8)).convert("P")), levels(4), looks(levels(4))),
    **{f"grey with transparency, {depth} bits": (
        drawn(levels(depth), depth, GREY, before=chunk(b"tRNS", b"\0\1")), levels(depth), looks(levels(depth) * (255 // (2**depth - 1)))
    ) for depth in (1, 2, 4, 8)},
    "grey with transparency, 16 bits": (
        drawn(levels(8) * 300, 16, GREY, before=chunk(b"tRNS", b"\0\1")), levels(8) * 300, looks(levels(8) * 300 >> 8)
    ),
    "grey with gamma": (drawn(levels(8), 8, GREY, before=chunk(b"gAMA", struct.pack(">I", 200_000))), levels(8), looks(levels(8))),
    "grey with few significant bits": (drawn(levels(8), 8, GREY, before=chunk(b"sBIT", b"\3")), levels(8), looks(levels(8))),
    "grey with a background": (drawn(levels(8), 8, GREY, before=chunk(b"bKGD", b"\0\7")), levels(8), looks(levels(8))),
    **{f"interlaced grey, {width}x{height}": (
        drawn(levels(8)[:height, :width], 8, GREY, interlaced=True), levels(8)[:height, :width], looks(levels(8)[:height, :width])
    ) for width, height in ((1, 1), (2, 1), (5, 3), (13, 9))},
    "interlaced grey, 2 bits": (drawn(levels(2), 2, GREY, interlaced=True), levels(2), looks(levels(2) * 85)),
    "interlaced grey, 16 bits": (drawn(levels(8) * 300, 16, GREY, interlaced=True), levels(8) * 300, looks(levels(8) * 300 >> 8)),
    "interlaced palette": (
        drawn(levels(4), 4, PALETTE, before=palette(SHUFFLED[:16]), interlaced=True), levels(4), SHUFFLED[levels(4)]
    ),
    "RGB": (drawn(RGB8, 8, RGB), COLOURED, RGB8),
    "RGB that looks grey": (drawn(looks(levels(8)), 8, RGB), levels(8), looks(levels(8))),
    "RGB, 16 bits": (drawn(RGB16, 16, RGB), COLOURED, RGB8),
    "RGB with transparency": (drawn(RGB8, 8, RGB, before=chunk(b"tRNS", bytes(6))), COLOURED, RGB8),
    "interlaced RGB": (drawn(RGB8, 8, RGB, interlaced=True), COLOURED, RGB8),
    "RGBA": (drawn(np.dstack([RGB8, GREY8]), 8, RGBA), ALPHA, RGB8),
    "RGBA, 16 bits": (drawn(np.dstack([RGB16, RGB16[..., 0]]), 16, RGBA), ALPHA, RGB8),
    "grey and alpha": (drawn(np.dstack([GREY8, GREY8]), 8, pictures.GREY_ALPHA), ALPHA, looks(GREY8)),
    "grey and alpha, 16 bits": (drawn(np.dstack([RGB16[..., 0]] * 2), 16, pictures.GREY_ALPHA), ALPHA, looks(GREY8)),
    "JPEG in grey": (encoded(looks(GREY8)[..., 0], "JPEG", quality=100), "JPEG mask", looks(GREY8)),
    "JPEG in CMYK": (CMYK, "JPEG mask", "CMYK"),
    "JPEG in YCCK": (CMYK.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"), "JPEG mask", "CMYK"),
    **{f"JPEG turned {turn}": (exif(RGB8, turn, "JPEG"), "JPEG mask", TURNED) for turn in range(2, 9)},
    **{f"turned {turn}": (exif(levels(8).astype(np.uint8), turn), TURNED, TURNED) for turn in range(2, 9)},
    **{f"turned {turn}, which is no turn": (exif(levels(8).astype(np.uint8), turn), TURNED, TURNED) for turn in (0, 9)},
    "upright": (exif(levels(8).astype(np.uint8), 1), levels(8), looks(levels(8))),
    "turned by XMP": (drawn(levels(8), 8, GREY, before=xmp(6)), TURNED, TURNED),
    **{f"{format} file": (encoded(levels(8).astype(np.uint8), format), WRITTEN_BY_OTHERS, WRITTEN_BY_OTHERS)
       for format in ("GIF", "PPM")},
    **OTHERS,
    "no pixel kind": (png(2, 2, 3, GREY, bytes(10)), "depth 3", "depth 3"),
    "palette without colours": (drawn(levels(4), 4, PALETTE), "a chunk is missing", "a chunk is missing"),
    "palette of too few colours": (
        drawn(levels(4), 4, PALETTE, before=palette(SHUFFLED[:9])), levels(4), "pixels of colour 15, but a palette of 9"
    ),
}  # fmt: skip
