"""What users of such tools report: wrong answers without a word, each kind with the siblings that were looked for."""

import logging
import pickle
from functools import cache

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import glunet
from glunet.errors import GlunetError
from glunet.evaluation.datasets.read import read_image
from glunet.flow.files import read_flow, write_flow, writing_folder
from glunet.geometry.points import read_points
from glunet.images.reading import DEPTHS, image_size, load_as_stored, load_image, load_mask, size_as_stored
from glunet.inference.confidence import Calibration
from glunet.match import Match, Provenance
from glunet.training.photographs import Place, decode
from untrained import matcher

RANDOM = np.random.default_rng(0)
SIZE = (40, 56)
IMAGE = RANDOM.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
OTHER = RANDOM.integers(0, 256, (*SIZE, 3)).astype(np.uint8)


@cache
def shipped() -> glunet.Matcher:
    return glunet.load()


def crop(x: int, y: int, size: tuple[int, int] = (200, 280)) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[y : y + size[0], x : x + size[1]])


# Masks: one reader, one rule


@pytest.mark.parametrize("kind", ["bool", "01", "0-255", "float", "ringing", "HxWx1", "tensor", "png", "L with alpha",
                                  "white with alpha", "black with alpha", "1-bit"])  # fmt: skip
def test_the_same_mask_in_any_form_is_the_same(kind, tmp_path):
    valid = np.zeros(SIZE, bool)
    valid[5:30, 10:40] = True
    levels = (valid * 255).astype(np.uint8)
    colours = {"white with alpha": 255, "black with alpha": 0}.get(kind)
    made = {
        "bool": valid,
        "01": valid.astype(np.uint8),
        "0-255": levels,
        "float": np.where(valid, 0.9, np.nan),
        "ringing": np.clip(levels.astype(int) + RANDOM.integers(-20, 20, SIZE), 0, 255).astype(np.uint8),
        "HxWx1": valid[..., None],
        "tensor": torch.from_numpy(valid)[None],
        "png": tmp_path / "mask.png",
        "L with alpha": Image.merge("LA", (Image.fromarray(levels), Image.new("L", levels.shape[::-1], 255))),
        "1-bit": Image.fromarray(levels).convert("1"),
    }
    if colours is not None:
        planes = [Image.new("L", levels.shape[::-1], colours)] * 3
        made[kind] = Image.merge("RGBA", (*planes, Image.fromarray(levels)))
    Image.fromarray(valid.astype(np.uint8)).save(tmp_path / "mask.png")
    assert np.array_equal(load_mask(made[kind], "target mask", SIZE), valid)


def test_a_mask_that_cannot_be_used_is_said():
    for mask, told in (
        (np.full(SIZE, np.nan), "leaves no pixel"),
        (np.zeros(SIZE), "leaves no pixel"),
        (np.zeros((3, 3)), "3 x 3"),
        (np.full(SIZE, "x"), "one number or bool"),
        (torch.zeros(2, *SIZE), "2 x 40 x 56"),
    ):
        with pytest.raises(GlunetError, match=told):
            load_mask(mask, "source mask", SIZE)


def test_the_verdict_is_of_what_the_masks_allow():
    flow = np.zeros((60, 80, 2), np.float32)
    flow[:, 20:] = 30  # what is not valid goes astray
    back = np.zeros_like(flow)
    valid = np.zeros((60, 80), bool)
    valid[:, :4] = True
    calibration = Calibration((0.0, 9.0), (0.0, 9.0), ((1.0, 0.0), (0.5, 0.0)), 0.3, {})
    made = Provenance("made up")
    assert Match(flow, (60, 80), made, back, calibration).verdict.score < 0.5
    for masks in ({"target_valid": valid}, {"target_valid": valid, "source_valid": valid}):
        assert Match(flow, (60, 80), made, back, calibration, **masks).verdict.score > 0.8
    nothing = Match(flow, (60, 80), made, back, calibration, target_valid=~valid, source_valid=np.zeros((60, 80), bool))
    assert nothing.verdict.score == 0


# One reader of images


def upright(orientation: int) -> Image.Image:
    """What a file holds that a viewer shows as IMAGE."""
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that undo them
    picture = Image.fromarray(IMAGE)
    method = turns[orientation]
    return picture if method is None else picture.transpose(Image.Transpose(method))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_upright_by_all_readers(suffix, orientation, tmp_path):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    upright(orientation).save(path, exif=exif, **settings)
    off = 40 if suffix == ".jpg" else 0  # noise is what JPEG is worst at
    read = load_image(path).permute(1, 2, 0).numpy()
    assert image_size(path) == read.shape[:2] == SIZE
    assert np.abs(read - IMAGE).max() <= off
    assert np.abs(read_image(path).astype(int) - IMAGE).max() <= off
    if suffix == ".tif":  # which is mapped into memory, unlike colours
        grey = Image.fromarray(np.asarray(upright(orientation))[..., 0].copy())
        grey.save(tmp_path / "grey.tif", exif=exif)
        assert np.array_equal(load_image(tmp_path / "grey.tif")[0].numpy(), IMAGE[..., 0])
        with Image.open(tmp_path / "grey.tif") as opened:
            assert np.array_equal(load_image(opened)[0].numpy(), IMAGE[..., 0])
    stored = load_as_stored(path)
    assert size_as_stored(path) == stored.shape[:2] == upright(orientation).size[::-1]
    assert np.abs(stored.astype(int) - np.asarray(upright(orientation))).max() <= off


def test_evaluation_and_training_read_what_a_matcher_reads(tmp_path):
    grey = RANDOM.integers(0, 65536, (80, 96)).astype(np.uint16)
    alpha = np.dstack((RANDOM.integers(0, 256, (80, 96, 3)), RANDOM.integers(0, 256, (80, 96)))).astype(np.uint8)
    files = {
        "16.png": Image.fromarray(grey),
        "float.tif": Image.fromarray(RANDOM.random((80, 96)).astype(np.float32)),
        "alpha.png": Image.fromarray(alpha),
        "palette.png": Image.fromarray(alpha[..., :3]).quantize(16),
    }
    for name, picture in files.items():
        path = tmp_path / name
        picture.save(path)
        expected = load_image(path).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(read_image(path), expected), name
        assert np.array_equal(decode(Place(path)).permute(1, 2, 0).numpy(), expected), name


def test_float_colours_of_a_tiff_are_read(tmp_path):
    path = tmp_path / "float.tif"
    colours = RANDOM.random((*SIZE, 3)).astype(np.float32)
    cv2.imwrite(str(path), colours[..., ::-1])
    assert np.abs(load_image(path).permute(1, 2, 0).numpy() - 255 * colours).max() <= 0.51


# Depth


@pytest.mark.parametrize("bits", DEPTHS)
def test_bits_in_16_do_not_change_the_answer(bits, caplog):
    source, target = (cv2.cvtColor(crop(x, y), cv2.COLOR_RGB2GRAY) for x, y in ((48, 67), (60, 60)))
    factor = (1 << bits) // 256
    with caplog.at_level(logging.WARNING):
        match = shipped().match(source.astype(np.uint16) * factor, target.astype(np.uint16) * factor)
        shipped().open(source.astype(np.uint16) * factor)
    assert len(caplog.records) <= 1, "said once"
    error = np.hypot(match.flow[..., 0] - 12, match.flow[..., 1] + 7)[20:-20, 20:-20]
    assert np.median(error) < 0.3


def test_both_images_of_a_pair_have_the_same_white():
    dim = (IMAGE[..., 0].astype(np.uint16) + 1) * 3  # 10 bits
    bright = dim * 4  # 12 bits
    made = matcher()
    by_itself = made.open(dim).pixels.max()
    found = made.match(dim, bright)
    assert np.abs(found.pictures[0].astype(int) - load_image(dim).numpy()[0, ..., None] / 4.005).max() < 1
    assert by_itself > 3 * found.pictures[0].max()
    batch = [torch.from_numpy(image.copy())[None, None].expand(1, 3, *SIZE) for image in (dim, bright)]
    np.testing.assert_allclose(made.flow(*batch)[0].permute(1, 2, 0), made.match(dim, bright).flow, atol=2e-2)


# PyTorch's global state


@pytest.fixture(params=["autocast", "device", "dtype", "deterministic", "inference", "no grad"])
def foreign(request):
    """A caller who has set something global."""
    if request.param == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield request.param
    elif request.param in ("inference", "no grad"):
        with torch.inference_mode() if request.param == "inference" else torch.no_grad():
            yield request.param
    else:
        torch.set_default_device("meta" if request.param == "device" else None)
        torch.set_default_dtype(torch.float64 if request.param == "dtype" else torch.float32)
        torch.use_deterministic_algorithms(request.param == "deterministic")
        try:
            yield request.param
        finally:
            torch.set_default_device(None)  # "cpu" would leave a mode behind, which the compiler does not trace
            torch.set_default_dtype(torch.float32)
            torch.use_deterministic_algorithms(False)


@cache
def alone() -> glunet.Matcher:
    """The network, whose answer global state would change first; a search on noise takes seconds."""
    return matcher()


def unsearched() -> glunet.Matcher:
    """The package's weights, read from their file: with adapters, and a head that says how sure they are."""
    return glunet.load(device="cpu", search="none", polish=False)


@cache
def expected() -> tuple[Match, torch.Tensor, Match]:
    batch = [torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() for image in (IMAGE, OTHER)]
    return alone().match(IMAGE, OTHER), alone().flow(*batch), unsearched().match(IMAGE, OTHER)


@pytest.fixture(scope="module")
def before():
    return expected()


def test_global_state_changes_nothing(before, foreign):
    found = alone().match(IMAGE, OTHER)
    assert np.array_equal(found.flow, before[0].flow)
    assert np.array_equal(found.confidence, before[0].confidence)
    many = next(alone().match_many([(IMAGE, OTHER)])).match
    assert np.array_equal(many.flow, before[0].flow)
    encoded = alone().encode(IMAGE)
    np.testing.assert_allclose(alone().match(encoded, OTHER).flow, before[0].flow, atol=1e-3)
    batch = [torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() for image in (IMAGE, OTHER)]
    assert torch.equal(alone().flow(*batch), before[1])
    loaded = unsearched()
    found = loaded.match(IMAGE, OTHER)
    assert np.array_equal(found.flow, before[2].flow)
    assert np.array_equal(found.confidence, before[2].confidence)
    assert not any(parameter.is_inference() for parameter in loaded.network.parameters())


def test_flow_is_an_ordinary_tensor():
    batch = [torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() for image in (IMAGE, OTHER)]
    for flow in (alone().flow(*batch), matcher(flipping=True).flow(*batch)):
        assert not flow.is_inference()
        weight = torch.nn.Parameter(torch.ones(1))
        (flow * weight).sum().backward()
        assert weight.grad is not None
        flow.add_(1)


# Label maps and large numbers


def shifted_by_half() -> Match:
    flow = np.full((*SIZE, 2), 0.5, np.float32)
    return Match(flow, SIZE, Provenance("made up"))


def test_label_maps_are_warped_by_the_nearest_pixel():
    labels = np.where(np.arange(SIZE[1]) < 20, 7, 0) * np.ones((SIZE[0], 1), int)
    match = shifted_by_half()
    for kind in (np.int32, np.int64, np.uint32):
        assert set(np.unique(match.warp(labels.astype(kind)))) == {0, 7}
    assert set(np.unique(match.warp(labels.astype(np.uint8), nearest=True))) == {0, 7}
    assert 4 in np.unique(match.warp(labels.astype(np.uint8))), "photographs have values in between"
    assert match.warp(labels > 0).dtype == bool


def test_no_large_number_is_lost():
    match = shifted_by_half()
    large = np.full(SIZE, 2**60 + 1)
    assert match.warp(large).max() == 2**60 + 1
    precise = np.full(SIZE, 5e6 + 1 / 3)
    assert np.abs(match.warp(precise)[:-1, :-1] - precise[:-1, :-1]).max() < 1e-6
    assert match.warp(large[..., None].repeat(2, axis=2), nearest=True).shape == (*SIZE, 2)


# Models of nothing


def test_there_is_no_homography_of_unrelated_photographs():
    match = shipped().match(crop(60, 60), np.ascontiguousarray(skimage.data.coffee()[:200, :280]))
    assert match.verdict.same is False
    for name in ("homography", "fundamental"):
        with pytest.raises(GlunetError, match=r"do not show the same thing.*insist"):
            getattr(match, name)()
    try:
        matrix = match.homography(insist=True)
    except GlunetError:
        return
    assert np.isfinite(matrix).all()


def test_a_homography_that_mirrors_or_huddles_is_none():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    mirrored = np.stack((79 - 2 * x, 0 * y), axis=-1)
    with pytest.raises(GlunetError, match="was not found"):
        Match(mirrored, (60, 80), Provenance("made up")).homography(least=0)


# Points, files, words


@pytest.mark.parametrize(("first", "good"), [("x,y", True), ("10,2O", False), ("1O,20", False), ("-,5", False),
                                             ("x_target,y_target", True)])  # fmt: skip
def test_a_first_line_with_a_typo_is_no_heading(first, good, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(f"{first}\n3,4\n")
    if good:
        assert read_points(path).tolist() == [[3, 4]]
    else:
        with pytest.raises(GlunetError, match="Line 1"):
            read_points(path)


def test_capital_suffixes_are_taken(tmp_path):
    flow = np.zeros((4, 5, 2), np.float32)
    for suffix in (".FLO", ".PNG", ".Npz"):
        write_flow(tmp_path / f"a{suffix}", flow)
        assert read_flow(tmp_path / f"a{suffix}").flow.shape == flow.shape
    match = matcher().match(IMAGE, OTHER)
    match.save(tmp_path / "page.htm")
    assert (tmp_path / "page.htm").read_text().startswith("<!")


def test_what_is_no_flow_is_said(tmp_path):
    for flow in ([[1, 2]], "flow", np.full((3, 3, 2), "x"), None):
        with pytest.raises(GlunetError, match="array of numbers"):
            write_flow(tmp_path / "a.flo", flow)


def test_numbers_that_are_none_are_said():
    for passes in (2.5, 0, True, "2", float("nan")):
        with pytest.raises(GlunetError, match="whole number"):
            matcher(passes=passes)
    for side in (-1, 640.0, True, "640", float("nan")):
        with pytest.raises(GlunetError, match="whole number"):
            matcher(enlarge_to=side)
    for word in ("yes", 1, None, np.True_):
        with pytest.raises(GlunetError, match="True or False"):
            matcher(plane=word)
    for memory in (float("nan"), 0, -1, float("inf")):
        with pytest.raises(GlunetError, match="positive number"):
            matcher().match(IMAGE, OTHER, max_memory=memory)
    with pytest.raises(GlunetError, match=r"max_memory allows \d+ MB"):
        matcher().match(IMAGE, OTHER, max_memory=10_000_000)


def test_an_encoded_image_from_elsewhere_is_told_apart():
    encoded = pickle.loads(pickle.dumps(unsearched().encode(IMAGE)))
    with pytest.raises(GlunetError, match="another process"):
        unsearched().match(encoded, OTHER)


def test_a_damaged_file_is_named_once(tmp_path):
    path = tmp_path / "broken.png"
    Image.fromarray(IMAGE).save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(GlunetError) as caught:
        load_image(path)
    assert str(caught.value).count("broken.png") == 1


def test_a_way_back_up_in_a_path_needs_no_folder(tmp_path):
    with writing_folder(tmp_path / "none" / ".." / "there") as part:
        (part / "file").write_text("x")
    assert (tmp_path / "there" / "file").exists()
    assert not (tmp_path / "none").exists()


# The same pixels always give the same flow

MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "I;16", "F")


def draw(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (*size, 4)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 1 << int(random.choice(DEPTHS)), size).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(random.random(size).astype(np.float32))
    picture = Image.fromarray(colours)
    return picture.convert(mode) if mode in ("RGBA", "LA") else picture.convert("RGB").convert(mode)


@st.composite
def cases(make):
    return (
        make(st.sampled_from(MODES)),
        make(st.tuples(st.integers(30, 70), st.integers(30, 70))),
        make(st.integers(1, 8)),
        make(st.sampled_from((".png", ".tif"))),
        make(st.integers(0, 2**16)),
        make(st.sampled_from(("array", "tensor", "strided", "reversed", "picture", "path", "encoded", "many"))),
    )


def check(case, folder) -> None:
    mode, size, orientation, suffix, seed, way = case
    path = folder / f"drawn{'.tif' if mode == 'F' else suffix}"
    picture = draw(mode, size, seed)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)
    if min(size) < 32:
        with pytest.raises(GlunetError, match="at least 32"):
            load_image(path)
        assert str(next(matcher().match_many([(path, path)])).error).startswith("Pair 0: ")
        return
    pixels = load_image(path)
    assert image_size(path) == tuple(pixels.shape[-2:])
    shown = pixels.permute(1, 2, 0).numpy()
    assert np.array_equal(read_image(path), pixels.round().byte().permute(1, 2, 0).numpy())
    floats = (shown / 255).astype(np.float32)
    other = np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    reference = matcher().match(path, other, confidence=False).flow
    given_as = {
        "array": lambda: floats,
        "tensor": lambda: torch.from_numpy(floats).permute(2, 0, 1).contiguous(),
        "strided": lambda: torch.from_numpy(floats).permute(2, 0, 1),
        "reversed": lambda: floats[::-1].copy()[::-1],
        "picture": lambda: Image.open(path),
        "path": lambda: str(path),
        "encoded": lambda: matcher().encode(path),
    }
    if way == "many":
        found = next(matcher().match_many([(path, other)], confidence=False)).match.flow
    else:
        found = matcher().match(given_as[way](), other, confidence=False).flow
    np.testing.assert_allclose(found, reference, atol=0.05)
    assert np.isfinite(found).all()


@settings(max_examples=25)
@given(case=cases())
def test_the_same_pixels_give_the_same_flow(case, tmp_path_factory):
    check(case, tmp_path_factory.mktemp("drawn"))


@pytest.mark.fuzz
@settings(max_examples=1000)
@given(case=cases())
def test_the_same_pixels_give_the_same_flow_a_thousand_times(case, tmp_path_factory):
    check(case, tmp_path_factory.mktemp("drawn"))
