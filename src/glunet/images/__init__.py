"""Pictures in and out: reading images and masks, drawing matches, the page that shows one."""

from glunet.images.reading import ImageLike, image_size, load_image, load_mask

__all__ = ["ImageLike", "image_size", "load_image", "load_mask"]
