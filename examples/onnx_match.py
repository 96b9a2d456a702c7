"""Match by onnxruntime and NumPy alone: where each target pixel is in the source, and what comes back to its place.

    glunet export glunet.onnx
    python examples/onnx_match.py glunet.onnx source.npy target.npy match.npz

Images are arrays of H x W x 3, RGB, uint8; a target has 32 to 527 pixels a side.
"""

import sys

import numpy as np
import onnxruntime


def match(session: onnxruntime.InferenceSession, source: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """`flow`, H x W x 2, target into source, and `backward`, the way back; `round_trip`, H x W: all in pixels."""
    inputs = {"source": source, "target": target}
    planes = {name: image.transpose(2, 0, 1)[None].astype(np.float32) for name, image in inputs.items()}
    flow, backward = (plane[0].transpose(1, 2, 0) for plane in session.run(["flow", "backward"], planes))
    here = np.stack(np.meshgrid(*map(np.arange, target.shape[1::-1])), axis=-1)
    there = np.rint(here + flow).astype(int)
    inside = ((there >= 0) & (there < source.shape[1::-1])).all(axis=-1)
    x, y = there.clip(0, np.array(source.shape[1::-1]) - 1).transpose(2, 0, 1)
    round_trip = np.where(inside, np.linalg.norm(flow + backward[y, x], axis=-1), np.inf)  # infinite: out of view
    return {"flow": flow, "backward": backward, "round_trip": round_trip}


if __name__ == "__main__":
    model, source, target, out = sys.argv[1:]
    found = match(onnxruntime.InferenceSession(model), np.load(source), np.load(target))
    np.savez(out, **found)
    print(f"{out}: {(found['round_trip'] <= 1).mean():.0%} of the target's pixels come back to within a pixel")
