"""The images of a batch: a folder, or any address that fsspec opens."""

import os
import tempfile

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.images.reading import load_pixels


class Store:
    """Where images are read from.

    Args:
        address: a folder, or an address such as s3://bucket/images.

    Raises:
        GlunetError: fsspec, or what it needs for such an address, is missing; an address that it does not know; a
            local folder that is not there.
    """

    def __init__(self, address: str) -> None:
        with needed("A batch needs fsspec", "batch"):
            import fsspec
        try:
            self.system, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError, OSError) as error:
            raise GlunetError(f"The images at '{address}' cannot be reached ({error}): check the address.") from error
        protocols = self.system.protocol
        self.local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        if self.local and not os.path.isdir(self.root):
            raise GlunetError(f"'{address}' is no folder: name the folder that holds the images.")

    def read(self, name: str) -> np.ndarray:
        """H x W x 3 uint8, RGB, upright as EXIF says.

        Raises:
            GlunetError: if there is no such image, it cannot be had, or it cannot be used.
        """
        address = f"{self.root.rstrip('/')}/{name}"
        if self.local:
            return load_pixels(address)
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, os.path.basename(name))
            try:
                self.system.get_file(address, copy)
            except Exception as error:  # each kind of storage has its own
                reason = " ".join(str(error).split()) or type(error).__name__
                raise GlunetError(f"The image '{address}' cannot be read ({reason}): check the address.") from error
            try:
                return load_pixels(copy)
            except GlunetError as error:
                raise GlunetError(str(error).replace(copy, address)) from error
