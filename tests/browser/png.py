"""Pictures of a page made small: 256 colours are enough for what is mostly text and ground."""

import base64
import struct
import zlib
from typing import Final

from playwright.sync_api import Page

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Pixels as places in a palette of the most frequent colours; the others become their nearest.
_INDEX: Final = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const each of pixels) counts.set(each, (counts.get(each) ?? 0) + 1);
  const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 256).map(([each]) => each);
  const part = (color, shift) => (color >> shift) & 255;
  const far = (a, b) => [0, 8, 16].reduce((sum, s) => sum + (part(a, s) - part(b, s)) ** 2, 0);
  const places = new Map();
  for (const color of counts.keys()) {
    let best = 0;
    palette.forEach((each, i) => { if (far(each, color) < far(palette[best], color)) best = i; });
    places.set(color, best);
  }
  let text = "";
  for (const each of pixels) text += String.fromCharCode(places.get(each));
  const colors = palette.flatMap((each) => [part(each, 0), part(each, 8), part(each, 16)]);
  return [image.width, image.height, colors, btoa(text)];
}"""


def small(page: Page, picture: bytes) -> bytes:
    """The same picture as a palette PNG; `page` is any page that lets scripts in."""
    width, height, colors, text = page.evaluate(_INDEX, base64.b64encode(picture).decode())
    places = base64.b64decode(text)
    rows = b"".join(b"\0" + places[y * width : (y + 1) * width] for y in range(height))
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(colors)),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
