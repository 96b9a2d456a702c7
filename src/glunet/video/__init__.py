"""Video: frames in, flow and films out, one pair of frames at a time.

`reader` gives the frames of a video file or of a folder of images, `flows` matches them, `stabilise` finds how the
camera shook, `film` writes mp4, and `run` is what `glunet video` does. Video needs the extra "video".
"""
