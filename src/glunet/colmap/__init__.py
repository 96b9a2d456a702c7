"""Structure from motion: matches of many images, with keypoints that several pairs share, as COLMAP and hloc read them.

`keypoints` keeps one point a cell of each image, `collect` matches and finds which of them belong together, `database`
and `hloc` write. Needs the extra "colmap".
"""
