from __future__ import annotations

import colorsys
import errno
import math
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.clips import draw_clip
from tagseg.data.scenes import OBJECTS
from tagseg.errors import ConfigError, DataError, ShapeError
from tagseg.priors import videopca
from tagseg.priors.videopca import (
    SmallShot,
    VideoPcaSettings,
    centre_map,
    colour_bins,
    error_maps,
    evidence_maps,
    foreground_maps,
    foreground_shares,
    principal_components,
    soft_mask,
    videopca_masks,
)

DEFAULT = VideoPcaSettings()


def clip_of_square(count=24, height=60, width=80, *, pan=0.0, seed=0):
    """A red square of 16 pixels crosses a textured background: frames, and where it is."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(-900, 1100, (height, width + 60, 3)).astype(np.float64)
    texture = np.clip(cv2.GaussianBlur(texture, (0, 0), 4) + 100, 0, 220)
    frames, truth = [], np.zeros((count, height, width), bool)
    for t in range(count):
        shift = round(pan * t)
        frame = texture[:, shift : shift + width].copy()
        left = 14 + round((width - 44) * t / (count - 1))
        truth[t, 22:38, left : left + 16] = True
        frame[truth[t]] = 230, 30, 40
        frames.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
    return frames, truth


def random_clip(count=9, height=14, width=17, seed=3):
    """Few components carry nearly all of the variance: a gap after the third."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(3, height * width * 3))
    weights = rng.normal(size=(count, 3)) * (30, 20, 12)
    noise = rng.normal(0, 2, (count, height * width * 3))
    noise[:, : noise.shape[1] // 2] *= 3
    values = 128 + weights @ basis + noise
    return np.clip(values, 0, 255).round().astype(np.uint8).reshape(count, height, width, 3)


def slow_errors(frames, components):
    """||f - reconstruction|| from the full decomposition in float64."""
    data = np.asarray(frames, np.float64).reshape(len(frames), -1)
    mean = data.mean(0)
    u, s, vt = np.linalg.svd(data - mean, full_matrices=False)
    k = components
    left = data - mean - u[:, :k] * s[:k] @ vt[:k]
    left = left.reshape(np.asarray(frames).shape)
    errors = np.zeros(left.shape[:3])
    for t, y, x in np.ndindex(errors.shape):
        errors[t, y, x] = math.sqrt(sum(channel**2 for channel in left[t, y, x]))
    return errors


def slow_centre(height, width, share):
    out = np.zeros((height, width))
    sigma = share * min(height, width)
    for y, x in np.ndindex(out.shape):
        square = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
        out[y, x] = math.exp(-square / (2 * sigma**2))
    return out


def slow_blur(error, sigma):
    """Gaussian of 4 sigma, the picture mirrored at the middle of its outer pixels."""
    reach = (round(8 * sigma + 1) | 1) // 2
    taps = np.array([math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)])
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    mirrored = np.pad(error, reach, mode="reflect")
    out = np.zeros_like(error)
    for y, x in np.ndindex(out.shape):
        out[y, x] = (kernel * mirrored[y : y + len(taps), x : x + len(taps)]).sum()
    return out


def slow_evidence(errors, settings):
    low, high = errors.min(), errors.max()
    centre = slow_centre(*errors.shape[1:], settings.centre)
    sigma = settings.blur * min(errors.shape[1:])
    return np.array([slow_blur((one - low) / (high - low), sigma) * centre for one in errors])


def slow_coordinates(pixel):
    h, s, v = colorsys.rgb_to_hsv(*(float(channel) / 255 for channel in pixel))
    angle = 2 * math.pi * h
    return (s * math.cos(angle) + 1) / 2, (s * math.sin(angle) + 1) / 2, v


def slow_shares(frames, masks, bins):
    """p of each colour that occurs, by dictionaries; the bins' numbers are the program's own."""
    counts = {True: {}, False: {}}
    for frame, mask in zip(frames, masks, strict=True):
        for number, inside in zip(colour_bins(frame, bins).ravel(), mask.ravel(), strict=True):
            of_side = counts[bool(inside)]
            of_side[int(number)] = of_side.get(int(number), 0) + 1
    sums = {side: sum(of_side.values()) for side, of_side in counts.items()}
    shares = np.zeros(bins**3)
    for number in set(counts[True]) | set(counts[False]):
        f = counts[True].get(number, 0) / sums[True]
        b = counts[False].get(number, 0) / sums[False]
        shares[number] = f / (f + b)
    return shares


def slow_soft_mask(shares, centre, weak, strong):
    """Flood from each strong pixel over weak ones, in four directions."""
    height, width = shares.shape
    values = shares * centre
    out = np.zeros_like(shares)
    pending = [(y, x) for y, x in np.ndindex(shares.shape) if values[y, x] > strong]
    while pending:
        y, x = pending.pop()
        if 0 <= y < height and 0 <= x < width and values[y, x] > weak and not out[y, x]:
            out[y, x] = shares[y, x]
            pending += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return out


def masks_of(frames, settings=None):
    return np.array(list(videopca_masks(lambda: iter(frames), settings)))


def test_components_equal_the_decomposition_across_a_gap():
    frames = random_clip(60, 20, 24)
    chosen = VideoPcaSettings(components=3)
    with SmallShot(iter(frames), None) as shot:
        found = principal_components(shot, chosen)
        errors = np.array(list(error_maps(shot, found)))
    expected = slow_errors(frames, 3)
    assert np.linalg.norm(errors - expected) < 1e-3 * np.linalg.norm(expected)
    np.testing.assert_allclose(errors, expected, rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-5)


def test_components_capture_as_much_variance_where_the_spectrum_has_no_gap():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (80, 16, 20, 3)).astype(np.uint8)
    with SmallShot(iter(noise), None) as shot:
        found = principal_components(shot, DEFAULT)
    data = noise.reshape(80, -1) - noise.reshape(80, -1).mean(0)
    best = np.square(np.linalg.svd(data, compute_uv=False)[:5]).sum()
    assert 0.98 * best < np.square(found.weights.astype(np.float64)).sum() < best * (1 + 1e-5)


def test_components_are_exact_in_a_short_shot_and_whatever_the_block(monkeypatch):
    frames = random_clip(9)
    monkeypatch.setattr(videopca, "_BLOCK", 2 * frames[0].size)
    with SmallShot(iter(frames), None) as shot:
        assert [len(block) for _, block in shot.blocks()] == [2, 2, 2, 2, 1]
        found = principal_components(shot, VideoPcaSettings(components=6))
        errors = np.array(list(error_maps(shot, found)))
    np.testing.assert_allclose(errors, slow_errors(frames, 6), rtol=1e-3, atol=2e-3)


def test_evidence_and_foreground_equal_loops():
    frames = random_clip()
    for relative in (True, False):
        chosen = VideoPcaSettings(components=3, blur=0.08, relative=relative, foreground=0.2)
        with SmallShot(iter(frames), None) as shot:
            components = principal_components(shot, chosen)
            evidence = evidence_maps(shot, components, chosen)
            found = np.array(list(evidence()))
            masks = np.array(list(foreground_maps(evidence, chosen)))

        expected = slow_evidence(slow_errors(frames, 3), chosen)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert expected.max() < 0.9, "relative or not must differ"
        threshold = 0.2 * (expected.max() if relative else 1)
        sure = np.abs(expected - threshold) > 2e-3
        assert (masks == (expected > threshold))[sure].all()
        assert masks.any()
        assert sure.mean() > 0.9


def test_centre_map_equals_a_loop():
    np.testing.assert_allclose(centre_map(9, 14, 1 / 3), slow_centre(9, 14, 1 / 3), atol=1e-6)
    assert centre_map(9, 13, 0.2).max() == 1


@pytest.mark.parametrize("bins", [2, 15, 32])
def test_colour_bins_equal_the_formula(bins):
    rng = np.random.default_rng(bins)
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    image[:2] = [[255, 255, 255]], [[0, 0, 0]]
    image[2] = rng.integers(0, 256, (50, 1))  # greys
    found = colour_bins(image, bins)
    assert found.shape == (40, 50)
    far = 0  # colours that 8-bit hue and saturation cannot bring over a bin's edge
    for y, x in np.ndindex(found.shape):
        exact = np.array(slow_coordinates(image[y, x])) * bins
        across = np.array([found[y, x] // bins**2, found[y, x] // bins % bins, found[y, x] % bins])
        slack = np.array([0.01, 0.01, 1e-9]) * bins
        expected = np.minimum(exact.astype(int), bins - 1)
        low, high = (exact - slack).astype(int), np.minimum((exact + slack).astype(int), bins - 1)
        assert (across >= low).all()
        assert (across <= high).all()
        far += bool((across == expected).all())
    assert far > 0.75 * found.size


def test_odd_bins_keep_grey_together():
    grey = np.full((1, 7, 3), 128, np.uint8)
    grey[0, np.arange(1, 7), np.tile(np.arange(3), 2)] += np.array([2] * 3 + [254] * 3, np.uint8)
    assert len(np.unique(colour_bins(grey, 15) // 15)) == 1


def test_shares_equal_dictionaries():
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 4, (6, 10, 12, 3)).astype(np.uint8) * 60
    masks = rng.random((6, 10, 12)) < 0.2 + 0.6 * (frames[..., 0] > 100)
    chosen = VideoPcaSettings(bins=5)
    with SmallShot(iter(frames), None) as shot:
        found = foreground_shares(shot, iter(masks), chosen)
        empty = foreground_shares(shot, iter(np.zeros_like(masks)), chosen)
        full = foreground_shares(shot, iter(np.ones_like(masks)), chosen)
    np.testing.assert_allclose(found, slow_shares(frames, masks, 5), atol=1e-6)
    assert len(np.unique(found)) > 20
    assert not empty.any()
    assert set(np.unique(full)) == {0, 1}


def test_soft_mask_equals_a_flood():
    rng = np.random.default_rng(8)
    shares = rng.random((30, 40)).astype(np.float32)
    centre = centre_map(30, 40, 1 / 3)
    found = soft_mask(shares, centre, DEFAULT)
    np.testing.assert_array_equal(found, slow_soft_mask(shares, centre, 0.5, 0.8))
    weak_alone = (shares * centre > 0.5) & (found == 0)
    assert weak_alone.any()
    assert (shares[found > 0] * centre[found > 0] <= 0.8).any()


def test_masks_equal_the_whole_method_in_float64():
    frames, _ = clip_of_square(8, 32, 48)
    chosen = VideoPcaSettings(components=4)
    evidence = slow_evidence(slow_errors(frames, 4), chosen)
    shares = slow_shares(frames, evidence > 0.5 * evidence.max(), chosen.bins)
    centre = slow_centre(32, 48, 1 / 3)
    expected = np.array(
        [slow_soft_mask(shares[colour_bins(one, chosen.bins)], centre, 0.5, 0.8) for one in frames]
    )
    found = masks_of(frames, chosen)
    assert found.dtype == np.float32
    assert expected.any()
    # A pixel at a threshold may fall to the other side, and change its colour's share a little.
    assert np.mean(np.abs(found - expected) > 2e-3) < 1e-3


@pytest.mark.parametrize("pan", [0.0, 0.7])
def test_a_moving_square_is_found(pan):
    frames, truth = clip_of_square(pan=pan)
    masks = masks_of(frames) > 0
    overlap = (masks & truth).sum() / (masks | truth).sum()
    chance = truth.mean()  # of a mask that holds everything
    assert chance < 0.1
    assert overlap > 0.6


def test_objects_of_generated_clips_are_found():
    """Under moving cameras, drifting light and noise; some of them leave the picture."""
    overlaps, chances = [], []
    for index in range(4):
        clip = draw_clip(OBJECTS, 200, index)
        masks, truth = masks_of(clip.frames) > 0, clip.labels > 0
        overlaps.append((masks & truth).sum() / (masks | truth).sum())
        chances.append(truth.mean())
    assert np.mean(overlaps) > 3 * np.mean(chances)
    assert min(overlaps) > 0.1


def test_masks_come_at_the_frames_size():
    frames, _ = clip_of_square()
    large = [np.kron(one, np.ones((2, 2, 1), np.uint8)) for one in frames]
    small = masks_of(frames)
    found = masks_of(large, VideoPcaSettings(side=80))
    assert found.shape == (24, 120, 160)
    np.testing.assert_array_equal(found[:, 59, 79] > 0, found[:, 60, 80] > 0)
    assert np.mean((found[:, ::2, ::2] > 0.5) != (small > 0.5)) < 0.05


def test_frames_are_let_go_and_read_once():
    frames, _ = clip_of_square()
    references: list[weakref.ref] = []
    most = calls = 0

    class Frame(np.ndarray):
        pass

    def read():
        nonlocal most, calls
        calls += 1
        for one in frames:
            frame = one.copy().view(Frame)
            references.append(weakref.ref(frame))
            most = max(most, sum(ref() is not None for ref in references))
            yield frame
            del frame

    assert len(list(videopca_masks(read))) == len(frames)
    assert calls == 1
    assert most <= 2


def test_long_shots_go_to_a_file_and_give_the_same(monkeypatch):
    frames, _ = clip_of_square()
    expected = masks_of(frames)
    monkeypatch.setattr(videopca, "_IN_MEMORY", 3 * frames[0].size)
    with SmallShot(iter(frames), None) as shot:
        assert isinstance(shot._file.fileno(), int)
        np.testing.assert_array_equal(np.concatenate([block for _, block in shot.blocks()]), frames)
    np.testing.assert_array_equal(masks_of(frames), expected)


def test_the_same_twice():
    frames, _ = clip_of_square(seed=4)
    np.testing.assert_array_equal(masks_of(frames), masks_of(frames))


@pytest.mark.parametrize("period", [1, 2])
def test_a_shot_that_stands_still_has_empty_masks(period):
    """Of one frame over and over, or of two in turn, which a component shows to rounding."""
    frames = [random_clip(2, seed=1)[t % period] for t in range(12)]
    masks = masks_of(frames)
    assert masks.shape == (12, 14, 17)
    assert not masks.any()


def test_too_few_frames():
    frames, _ = clip_of_square(6)
    assert len(masks_of(frames)) == 6
    with pytest.raises(DataError, match=r"^a shot has 5 frames, VideoPCA needs 6; [^\n]*$"):
        masks_of(frames[:5])
    with pytest.raises(DataError, match="no frames"):
        masks_of([])


def test_frames_of_other_sizes_or_kinds():
    frames, _ = clip_of_square(8)
    with pytest.raises(ShapeError, match="frame 7 of a shot is 30 x 80, the first is 60 x 80"):
        masks_of([*frames[:7], frames[7][:30]])
    with pytest.raises(ShapeError, match="float64"):
        masks_of([frames[0] / 255.0])


def test_a_full_disk_is_one_line(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(videopca, "SpooledTemporaryFile", lambda size: Full())
    with pytest.raises(DataError, match=r"No space left.*TMPDIR"):
        masks_of(clip_of_square(8)[0])


def test_a_broken_reader_is_not_taken_for_a_full_disk():
    def read():
        yield clip_of_square(2)[0][0]
        raise FileNotFoundError("gone.jpg")

    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        list(videopca_masks(read))


@pytest.mark.parametrize(
    "wrong",
    [
        {"components": 0},
        {"components": True},
        {"side": 4},
        {"blur": -0.1},
        {"blur": math.nan},
        {"centre": 0.0},
        {"foreground": 1.0},
        {"bins": 1},
        {"bins": 65},
        {"strong": 1.0},
        {"weak": 0.9},
        {"min_error": -1.0},
        {"oversampling": -1},
        {"iterations": 0},
        {"seed": -1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VideoPcaSettings(**wrong)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    count=st.integers(4, 12),
    levels=st.integers(1, 256),
    seed=st.integers(0, 99),
)
def test_masks_of_anything_are_masks(height, width, count, levels, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, levels, (count, height, width, 3)).astype(np.uint8)
    masks = masks_of(frames, VideoPcaSettings(components=3))
    assert masks.shape == frames.shape[:3]
    assert ((masks == 0) | ((masks > 0.5) & (masks <= 1))).all()
