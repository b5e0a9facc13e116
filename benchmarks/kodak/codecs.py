"""The codecs: each turns a picture into the bytes of a file and back.

A codec is run at a number of settings. Classical codecs are swept over their own quality scale, because that is fast
and gives smooth curves; ours are asked for bits per pixel.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features

import prancimg
from benchmarks.siren import __main__ as siren
from prancimg.fit.siren_encoder import EFFORTS, fit_to_size

with contextlib.suppress(ImportError):
    import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow


@dataclass(frozen=True)
class Setting:
    """What is asked of a codec."""

    value: float
    """Bits per pixel, or the codec's own quality."""
    variant: str = ""
    """The chroma subsampling, where the better of two counts."""

    def __str__(self) -> str:
        """Fit for a file name."""
        return f"{self.value:g}" + ("-" + self.variant.replace(":", "") if self.variant else "")


class Codec(ABC):
    """A way to write a picture to a file and to read it back. The ``repr`` names all that matters to its result."""

    slug: str
    name: str
    suffix: str
    sweep: Sequence[float] = ()
    """Its quality settings; without any it is asked for bits per pixel."""
    variants: Sequence[str] = ("",)

    @property
    @abstractmethod
    def about(self) -> str:
        """Its settings, for the reader."""

    @property
    @abstractmethod
    def made_by(self) -> str:
        """The software and its version. A result is computed again when this changes."""

    @abstractmethod
    def encode(self, picture: Image.Image, setting: Setting) -> bytes:
        """The file. Raises PrancImgError where the setting is out of reach."""

    @abstractmethod
    def decode(self, data: bytes) -> np.ndarray:
        """The picture in a file, (H, W, 3) uint8."""

    def settings(self, bpps: Sequence[float]) -> list[Setting]:
        """All it is to be run at."""
        return [Setting(value, variant) for variant in self.variants for value in self.sweep or bpps]


@dataclass(frozen=True)
class Still(Codec):
    """An image format that Pillow writes."""

    slug: str
    name: str
    suffix: str
    form: str
    """Pillow's name of the format."""
    library: str
    """Whose version counts, a name of ``PIL.features`` or a package."""
    told: str
    options: tuple[dict[str, Any], ...]
    """Of ``Image.save``; where there are several, the smallest file counts."""
    sweep: Sequence[float] = field(repr=False)
    variants: Sequence[str] = field(default=("",), repr=False)

    @property
    def about(self) -> str:
        """Its settings, for the reader."""
        return f"{self.told}; {self.made_by}"

    @property
    def made_by(self) -> str:
        """Pillow and the library behind it."""
        return f"Pillow {Image.__version__}, {self.library} {_version(self.library)}"

    @property
    def available(self) -> bool:
        """Whether this Pillow can write it."""
        Image.init()
        return self.form in Image.SAVE and _version(self.library) is not None

    def encode(self, picture: Image.Image, setting: Setting) -> bytes:
        """The smallest file of all options."""
        chroma = {"subsampling": setting.variant} if setting.variant else {}
        return min(
            (self._save(picture, {**self.scale(setting.value), **chroma, **more}) for more in self.options), key=len
        )

    def scale(self, value: float) -> dict[str, Any]:
        """The option that sets the quality."""
        return {"quality": round(value)}

    def _save(self, picture: Image.Image, options: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, self.form, **options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        """Through Pillow."""
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


class Jpeg2000(Still):
    """JPEG 2000 has no quality scale of its own: it is asked for a compression ratio."""

    def scale(self, value: float) -> dict[str, Any]:
        """From bits per pixel."""
        return {"quality_mode": "rates", "quality_layers": [24 / value]}


@cache
def _version(library: str) -> str | None:
    if library == "pillow-jxl-plugin":
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(library)
        return None
    version: str | None = features.version(library)
    return version


CHROMA = ("4:2:0", "4:4:4")
STILLS = (
    Still(
        slug="jpeg",
        name="JPEG",
        suffix=".jpg",
        form="JPEG",
        library="libjpeg_turbo",
        told="the better of 4:2:0 and 4:4:4, optimised Huffman tables, the smaller of baseline and progressive",
        options=({"optimize": True}, {"optimize": True, "progressive": True}),
        sweep=(1, 3, 5, 7, 10, 13, 17, 22, 28, 35, 43, 52, 61, 70, 78, 85, 90, 94),
        variants=CHROMA,
    ),
    Jpeg2000(
        slug="jpeg2000",
        name="JPEG 2000",
        suffix=".j2k",
        form="JPEG2000",
        library="jpg_2000",
        told="irreversible wavelet and colour transform, one layer, a bare codestream, asked for a rate",
        options=({"irreversible": True, "mct": 1, "no_jp2": True},),
        sweep=(0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2),
    ),
    Still(
        slug="webp",
        name="WebP",
        suffix=".webp",
        form="WEBP",
        library="webp",
        told="lossy, method 6 (the slowest), 4:2:0 because the format has no other",
        options=({"method": 6},),
        sweep=(0, 2, 5, 9, 14, 20, 27, 35, 44, 54, 64, 73, 80, 85, 90, 94),
    ),
    Still(
        slug="avif",
        name="AVIF",
        suffix=".avif",
        form="AVIF",
        library="avif",
        told="libaom, the better of 4:2:0 and 4:4:4, speed 4, tuned for PSNR, one thread",
        options=({"speed": 4, "codec": "aom", "max_threads": 1, "advanced": {"tune": "psnr"}},),
        sweep=(3, 9, 16, 24, 33, 42, 51, 60, 70, 80),
        variants=CHROMA,
    ),
    Still(
        slug="jpegxl",
        name="JPEG XL",
        suffix=".jxl",
        form="JXL",
        library="pillow-jxl-plugin",
        told="lossy (VarDCT), effort 9, one thread",
        options=({"effort": 9, "num_threads": 1},),
        sweep=(1, 5, 10, 17, 25, 35, 46, 57, 68, 78, 86, 92),
    ),
)


@cache
def source_digest() -> str:
    """Of all that decides what our encoders write: the package's code and priors, and the control's networks."""
    package = Path(prancimg.__file__).parent
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".bin"))
    digest = hashlib.sha256()
    for path in (*files, Path(siren.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Fitted(Codec):
    """A codec that fits a network to the picture, asked for bits per pixel."""

    slug: str
    name: str
    effort: int
    device: str
    suffix: str = ".prc"

    @property
    def made_by(self) -> str:
        """The state of the code, not only its version: it may be in development."""
        return f"prancimg {prancimg.__version__} ({source_digest()}), torch {torch.__version__}"

    def decode(self, data: bytes) -> np.ndarray:
        """Without torch."""
        return np.asarray(prancimg.decode(data))


@dataclass(frozen=True)
class Preset(Fitted):
    """A preset of prancimg."""

    model: str = "field"
    tune: str | None = None

    @property
    def about(self) -> str:
        """The call."""
        told = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"prancimg.encode(bpp=…, {told}); {self.made_by}"

    @property
    def options(self) -> dict[str, Any]:
        """All but the rate."""
        options = {"model": self.model, "effort": self.effort, "device": self.device}
        return options | ({"tune": self.tune} if self.tune else {})

    def encode(self, picture: Image.Image, setting: Setting) -> bytes:
        """Through the public function."""
        return prancimg.encode(picture, bpp=setting.value, **self.options)


@dataclass(frozen=True)
class Direct(Fitted):
    """The control: a SIREN whose weights are trained, rounded and sent directly, by the same fit and coder."""

    @property
    def about(self) -> str:
        """What it is."""
        return (
            "the best of three SIRENs from a seeded start, all weights trained, rounded and sent directly; "
            f"the fit, steps and coder of the siren preset, effort {self.effort}; {self.made_by}"
        )

    def encode(self, picture: Image.Image, setting: Setting) -> bytes:
        """Within the bytes that a preset may use at this rate."""
        size = int(setting.value * picture.width * picture.height / 8)
        image, device = np.asarray(picture), torch.device(self.device)
        fits = [fit_to_size(image, plan, 0, size, EFFORTS[self.effort], device) for plan in siren.plans("direct", size)]
        return min(fits, key=lambda fit: fit.error).data


def codecs(effort: int, device: str) -> dict[str, Codec]:
    """Every codec by its slug, ours first."""
    ours: list[Codec] = [
        Preset("field", "prancimg field", effort, device, model="field"),
        Preset("psnr", "prancimg field, tuned for PSNR", effort, device, model="field", tune="psnr"),
        Preset("siren", "prancimg siren", effort, device, model="siren"),
        Direct("direct", "direct INR", effort, device),
    ]
    return {codec.slug: codec for codec in (*ours, *STILLS)}
