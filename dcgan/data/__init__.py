"""Images -> one packed uint8 array on disk -> seeded batches on the device.

    source = open_source(None, cache=cache)                      # or a folder, an archive, "celeba"
    packed = pack(source, size=64, crop_px=None, images="all", cache=cache)
    batches = Batches(packed.images, batch_size=128, seed=0, device=device)
    real = batches(step)                                         # float (128, 3, 64, 64) in [-1, 1]

Knows no other part of the lab: paths and plain numbers go in.
"""

from dcgan.data.batches import Batches
from dcgan.data.files import DataError
from dcgan.data.pack import VERSION as PIXELS_VERSION
from dcgan.data.pack import PackedImages, find_pack, pack
from dcgan.data.sources import Source, open_source

__all__ = ["PIXELS_VERSION", "Batches", "DataError", "PackedImages", "Source", "find_pack", "open_source", "pack"]
