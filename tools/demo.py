"""Encode a sample photo that comes with scikit-image, decode it in a process of its own, and show both side by side.

python tools/demo.py OUTPUT_FOLDER
"""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

BPP = 0.3


def as_jpeg(photo: np.ndarray, quality: int) -> bytes:
    """The photo as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def main(folder: Path) -> None:
    """Write photo.png, photo.prc, decoded.png and demo.png to a folder and print the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = data.astronaut()
    Image.fromarray(photo).save(folder / "photo.png")

    def prancimg(*arguments: str | Path) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "prancimg", *map(str, arguments)], check=True)
        return time.perf_counter() - began

    encoding = prancimg("encode", folder / "photo.png", folder / "photo.prc", "--bpp", str(BPP))
    decoding = prancimg("decode", folder / "photo.prc", folder / "decoded.png")
    decoded = np.asarray(Image.open(folder / "decoded.png"))
    Image.fromarray(np.hstack((photo, decoded))).save(folder / "demo.png")
    size = (folder / "photo.prc").stat().st_size
    same = max((jpeg for quality in range(96) if len(jpeg := as_jpeg(photo, quality)) <= size), key=len)
    print(f"photo     {photo.shape[1]} x {photo.shape[0]}, {(folder / 'photo.png').stat().st_size} bytes as PNG")
    print(f"file      {size} bytes, {8 * size / (photo.shape[0] * photo.shape[1]):.4f} bits per pixel")
    print(f"quality   {peak_signal_noise_ratio(photo, decoded):.2f} dB PSNR")
    jpeg = np.asarray(Image.open(io.BytesIO(same)))
    print(f"JPEG      {peak_signal_noise_ratio(photo, jpeg):.2f} dB at {len(same)} bytes")
    print(f"time      {encoding:.1f} s to encode, {decoding:.2f} s to decode (whole processes)")
    print(f"picture   {folder / 'demo.png'} (original left, decoded right)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
