"""Captions of photos by the plain model: one photo after the other, with torchvision's transforms."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision import transforms

from config import DECODERS, GenerateConfig
from data.images import load_image
from tools.benchmark.plain_model import PlainModel
from tools.benchmark.plain_search import PlainCaption, beam_search


class PlainCaptioner:
    """A plain model with what it needs to caption photos.

    Args:
        model: in eval mode.
        options: of beam search, and whether the mirror image is encoded too.
        image_size: side of the square that photos are resized to, in pixels.
        mean, std: of each channel, in 0-1.
    """

    def __init__(
        self,
        model: PlainModel,
        options: GenerateConfig,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.model, self.options, self.device = model, options, device
        self.transform = transforms.Compose(
            [
                transforms.Resize((image_size, image_size), transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def read(self, path: Path) -> torch.Tensor:
        """A photo as a normalised tensor (1, 3, S, S)."""
        image: torch.Tensor = self.transform(load_image(path))
        return image[None].to(self.device)

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, S, S) -> features (1, P, D); with ``mirror`` those of the mirror image after them."""
        views = [image, image.flip(-1)] if self.options.mirror else [image]
        return torch.cat([self.model.encoder(view) for view in views], dim=1)

    def search(self, features: torch.Tensor, beam_size: int | None = None) -> PlainCaption:
        """The best caption for features (1, P, D)."""
        return beam_search(self.model.decoder, features, self.options, beam_size or self.options.beam_size)


def load_plain(path: Path, device: torch.device) -> tuple[PlainCaptioner, list[str]]:
    """A captioner and its words from a file that ``plain_copy.save_plain`` has written."""
    content = torch.load(path, map_location=device, weights_only=True)
    decoder = DECODERS[content["decoder"]["name"]](**content["decoder"])
    model = PlainModel(content["layout"], decoder, len(content["words"]))
    model.load_state_dict(content["weights"])
    options = GenerateConfig(**content["generate"])
    model = model.to(device).eval()
    return PlainCaptioner(model, options, content["image_size"], content["mean"], content["std"], device), content[
        "words"
    ]
