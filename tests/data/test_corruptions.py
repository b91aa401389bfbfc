"""Corruptions of whole batches against their definitions, written for one image and, where possible, one pixel."""

import colorsys
import io
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import ndimage, stats

from cifar10.data import corruptions
from cifar10.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt, names_of
from cifar10.data.corruptions.blur import disk, gaussian, smear
from cifar10.data.corruptions.pixels import draw
from cifar10.data.corruptions.weather import plasma

CONF = Path(__file__).parents[2] / "conf" / "corruption"

RANDOM = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "fog",
    "elastic_transform",
)
every = pytest.mark.parametrize("name", CORRUPTIONS)
each_severity = pytest.mark.parametrize("severity", SEVERITIES)


def smooth_images(count, height=32, width=32, seed=0):
    """Coloured blobs of the full range, as smooth as a photograph."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, height, width))
    blobs = ndimage.gaussian_filter(noise, (0, 0.3, 2, 2))
    blobs -= blobs.min((1, 2, 3), keepdims=True)
    return torch.from_numpy((blobs / blobs.max((1, 2, 3), keepdims=True) * 255).astype(np.uint8))


def constant(level, count=1, size=32):
    return torch.full((count, 3, size, size), level, dtype=torch.uint8)


def corrupted(images, name, severity):
    return corrupt(images, name, severity, torch.arange(len(images)))


def generator(name, severity, number=0):
    return np.random.default_rng([zlib.crc32(name.encode()), severity, number])


def pixels(images):
    """The only image as float64 (H, W, 3) in [0, 1], as the authors' script sees it."""
    return images[0].permute(1, 2, 0).numpy() / 255.0


def assert_is(images, expected, levels=1, share=0.01):
    """At most `share` of the values differ from expected (H, W, 3) in [0, 1], truncated, none by more than `levels`."""
    expected = np.uint8(np.clip(expected, 0, 1) * 255 + 2e-4)
    difference = np.abs(images[0].permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= levels and (difference > 0).mean() <= share


# all of them


@every
@each_severity
def test_an_image_is_the_same_alone_in_a_batch_and_in_any_order(name, severity):
    images, numbers = smooth_images(5), torch.tensor([7, 0, 123_456, 8, 9_999])
    before, order = images.clone(), torch.tensor([3, 0, 4, 1, 2])
    together = corrupt(images, name, severity, numbers)
    assert together.dtype == torch.uint8 and together.shape == images.shape
    assert torch.equal(images, before) and not torch.equal(together, images)
    alone = [corrupt(images[i : i + 1], name, severity, numbers[i : i + 1]) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together[order], corrupt(images[order], name, severity, numbers[order]))


@every
def test_images_of_a_set_too_large_to_compute_at_once_are_each_their_own(name):
    images = smooth_images(8, 16, 16).repeat(33, 1, 1, 1)
    together = corrupted(images, name, 2)
    assert torch.equal(together[-9:], corrupt(images[-9:], name, 2, torch.arange(255, 264)))
    assert torch.equal(together[:9], corrupt(images[:9], name, 2, torch.arange(9)))


@every
def test_random_numbers_are_a_function_of_name_severity_and_number_and_of_nothing_else(name):
    images = smooth_images(1).repeat(4, 1, 1, 1)
    np.random.seed(0)
    torch.manual_seed(0)
    first = corrupted(images, name, 4)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(corrupted(images, name, 4), first)
    assert len(first.flatten(1).unique(dim=0)) == (4 if name in RANDOM else 1)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "elastic_transform"])
def test_the_highest_severity_changes_an_image_more_than_the_lowest(name):
    images = smooth_images(12)
    lowest, highest = ((corrupted(images, name, s).float() - images.float()).abs().mean() for s in (1, 5))
    assert highest > 1.2 * lowest > 0.3


def test_the_severities_of_elastic_transform_trade_shift_for_distortion():
    images = torch.arange(0, 256, 8, dtype=torch.uint8).view(1, 1, 1, 32).repeat(12, 3, 32, 1)  # level = 8 * column
    shift, distortion = [], []
    for severity in (1, 3, 5):
        moved = (corrupted(images, "elastic_transform", severity).double() - images)[..., 6:26, 6:26]
        shift.append(moved.mean((2, 3)).abs().mean().item())
        distortion.append(moved.diff(dim=2).abs().mean().item())
    assert shift == sorted(shift, reverse=True) and distortion == sorted(distortion)


@every
@pytest.mark.parametrize("sides", [(16, 16), (24, 20), (33, 40)])
def test_images_of_other_sizes_are_corrupted_at_their_size(name, sides):
    images = smooth_images(2, *sides)
    out = corrupted(images, name, 5)
    assert out.shape == images.shape and not torch.equal(out, images)


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"])
@each_severity
def test_what_only_moves_and_averages_pixels_keeps_a_constant_image(name, severity):
    images = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 32, 32)
    assert torch.equal(corrupted(images, name, severity), images)


def test_groups_and_names_are_chosen_alike_and_each_corruption_once():
    assert names_of(["all"]) == names_of(GROUPS) == list(CORRUPTIONS)
    assert names_of(["weather"]) == ["snow", "fog", "brightness"]
    assert names_of(["fog", "weather", "contrast", "fog"]) == ["fog", "snow", "brightness", "contrast"]
    assert names_of([]) == []


def test_every_group_is_a_choice_on_the_command_line():
    files = {path.stem: path for path in CONF.glob("*.yaml")}
    assert files.keys() == {"all", *GROUPS}
    for choice, file in files.items():
        content = yaml.safe_load(file.read_text())
        assert content == {"names": [choice], "severities": list(SEVERITIES), "images": None}
        assert f"python evaluate.py +corruption={choice}\n" in file.read_text()


def test_a_corruption_is_added_by_its_function_and_its_place_in_the_table(monkeypatch):
    def speckle_noise(images, severity, rngs):
        sd = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
        return images + images * sd * draw(rngs, lambda rng: rng.standard_normal(images.shape[1:], np.float32), images)

    monkeypatch.setattr(corruptions.noise, "speckle_noise", speckle_noise, raising=False)
    table, added = Path(corruptions.__file__).read_text(), {}
    exec(table.replace('"noise": (', '"noise": (noise.speckle_noise, '), added)
    assert "speckle_noise" in added["names_of"](["all"]) and "speckle_noise" in added["names_of"](["noise"])
    images = constant(128, 3)
    assert len(added["corrupt"](images, "speckle_noise", 3, torch.arange(3)).unique(dim=0)) == 3


def test_an_unknown_name_is_refused_with_a_near_one_or_with_all_names():
    with pytest.raises(ValueError, match=r"^names=defocus: no such corruption; did you mean defocus_blur\?$"):
        names_of(["fog", "defocus"])
    with pytest.raises(ValueError, match=r"^names=xyz: .*available: all, noise, .*gaussian_noise, .*jpeg_compression$"):
        names_of(["xyz"])
    with pytest.raises(ValueError, match=r"^name=frost: must be one of gaussian_noise, .*jpeg_compression$"):
        corrupted(constant(0), "frost", 1)


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_a_severity_outside_1_to_5_is_refused(severity):
    with pytest.raises(ValueError, match=f"^severity={severity}: "):
        corrupted(constant(0), "fog", severity)


def test_images_that_are_not_uint8_or_lack_a_number_are_refused():
    with pytest.raises(ValueError, match=r"^images: must be uint8, not torch\.float32$"):
        corrupted(constant(0).float(), "fog", 1)
    with pytest.raises(ValueError, match=r"^numbers: must be one for each of the 2 images, not 3$"):
        corrupt(constant(0, 2), "fog", 1, torch.arange(3))


def test_no_images_are_no_images():
    assert corrupted(constant(0, 0), "glass_blur", 1).shape == (0, 3, 32, 32)


# noise


@pytest.mark.parametrize(("severity", "sd"), list(zip(SEVERITIES, [0.04, 0.06, 0.08, 0.09, 0.10], strict=True)))
def test_gaussian_noise_is_normal_of_the_given_standard_deviation(severity, sd):
    residual = (corrupted(constant(128, 20), "gaussian_noise", severity).double() + 0.5).flatten() / 255 - 128 / 255
    assert residual.mean().item() == pytest.approx(0, abs=0.002)
    assert residual.std().item() == pytest.approx(sd, rel=0.02)
    assert stats.kstest(residual[::20] / sd, "norm").statistic < 0.05
    image = corrupted(constant(128, 1), "gaussian_noise", severity).double()[0]
    correlations = np.corrcoef(image.flatten(1).numpy())[np.triu_indices(3, 1)]
    assert abs(correlations).max() < 0.15  # each channel has its own


@pytest.mark.parametrize(("severity", "full"), list(zip(SEVERITIES, [500, 250, 100, 75, 50], strict=True)))
@pytest.mark.parametrize("level", [40, 128])
def test_shot_noise_has_the_mean_of_the_image_and_a_variance_proportional_to_it(severity, full, level):
    seen = (corrupted(constant(level, 20), "shot_noise", severity).double() + 0.5).flatten() / 255
    assert seen.mean().item() == pytest.approx(level / 255, abs=0.004)
    assert seen.var().item() == pytest.approx(level / 255 / full, rel=0.04)


def test_shot_noise_counts_photons_and_leaves_black_black():
    assert not corrupted(constant(0, 2), "shot_noise", 5).any()
    counts = torch.arange(51)
    assert set(corrupted(constant(90), "shot_noise", 5).unique().tolist()) <= set((counts * 255 // 50).tolist())


@pytest.mark.parametrize(("severity", "amount"), list(zip(SEVERITIES, [0.01, 0.02, 0.03, 0.05, 0.07], strict=True)))
def test_impulse_noise_makes_the_given_fraction_of_values_black_or_white(severity, amount):
    out = corrupted(constant(100, 40), "impulse_noise", severity)
    assert set(out.unique().tolist()) == {0, 100, 255}
    for extreme in (0, 255):
        assert (out == extreme).double().mean().item() == pytest.approx(amount / 2, rel=0.15)


# blur


def test_disk_kernels_are_those_computed_by_hand():
    edge = math.exp(-1 / (2 * 0.4**2))
    line = np.array([edge, 1, edge]) / (1 + 2 * edge)
    np.testing.assert_allclose(disk(0.3, 0.4), np.outer(line, line))  # one pixel, smoothed
    plus = ndimage.generate_binary_structure(2, 1) / 5
    np.testing.assert_allclose(disk(1, 0.2), np.pad(plus, 1), atol=5e-6)
    np.testing.assert_allclose(disk(1.5, 0.1), np.pad(np.full((3, 3), 1 / 9), 1), atol=1e-12)
    for radius, sigma in ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1), (3.2, 0.5)):
        kernel = disk(radius, sigma)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_allclose(kernel, kernel.T)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1])


@each_severity
def test_defocus_blur_filters_with_the_disk(severity):
    radius, sigma = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    side = np.arange(-8, 9)
    kernel = (side[:, None] ** 2 + side**2 <= radius**2).astype(float)
    kernel = ndimage.gaussian_filter(kernel / kernel.sum(), sigma, radius=1)
    images = smooth_images(1)
    expected = ndimage.correlate(pixels(images), kernel[..., None], mode="mirror")
    assert_is(corrupted(images, "defocus_blur", severity), expected)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.4])
def test_smoothing_weights_are_scipys(sigma):
    impulse = np.zeros(9)
    impulse[4] = 1
    weights = gaussian(sigma, int(4 * sigma + 0.5))
    np.testing.assert_allclose(
        np.convolve(impulse, weights, "same"), ndimage.gaussian_filter1d(impulse, sigma), atol=1e-12
    )


@each_severity
def test_glass_blur_is_the_authors_loop_over_pixels(severity):
    sigma, times = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][severity - 1]
    images, rng = smooth_images(1), generator("glass_blur", severity)
    x = np.uint8(ndimage.gaussian_filter(pixels(images), (sigma, sigma, 0), mode="nearest") * 255 + 2e-4)
    for _ in range(times):
        steps = rng.integers(-1, 1, (30, 30, 2))
        for row in range(31, 1, -1):
            for column in range(31, 1, -1):
                down, across = steps[row - 2, column - 2]
                x[row, column], x[row + down, column + across] = x[row + down, column + across], x[row, column]
    expected = ndimage.gaussian_filter(x / 255.0, (sigma, sigma, 0), mode="nearest")
    assert_is(corrupted(images, "glass_blur", severity), expected, levels=2, share=0.02)


def motion_blurred(image, radius, sigma, degrees):
    """(H, W, C), pixel by pixel."""
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(2 * radius + 1)]
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for k, weight in enumerate(weights):
        down = math.ceil(k * math.sin(math.radians(degrees)) - 0.5)
        across = math.ceil(k * math.cos(math.radians(degrees)) - 0.5)
        for row in range(height):
            for column in range(width):
                source = image[min(max(row + down, 0), height - 1), min(max(column + across, 0), width - 1)]
                out[row, column] += weight / sum(weights) * source
    return out


@each_severity
def test_motion_blur_averages_along_a_line(severity):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]
    images = smooth_images(1)
    degrees = generator("motion_blur", severity).uniform(-45, 45)
    expected = motion_blurred(pixels(images), radius, sigma, degrees)
    assert_is(corrupted(images, "motion_blur", severity), expected + 0.5 / 65535, share=0.001)


@pytest.mark.parametrize(("degrees", "step"), [(0, (0, -1)), (45, (-1, -1)), (-45, (1, -1)), (-90, (1, 0))])
def test_a_point_is_smeared_in_the_direction_of_its_angle(degrees, step):
    impulse = torch.zeros(1, 1, 33, 33)
    impulse[..., 16, 16] = 1
    out = smear(impulse, 3, 2.0, [degrees])[0, 0]
    weights = np.exp(-0.5 * (np.arange(7) / 2) ** 2)
    for distance, weight in enumerate(weights / weights.sum()):
        if degrees % 90:  # on the diagonal a step is 0.7 pixels either way
            distance = math.ceil(distance * math.sqrt(0.5) - 0.5)
            weight = sum(w for k, w in enumerate(weights) if math.ceil(k * math.sqrt(0.5) - 0.5) == distance)
            weight /= weights.sum()
        assert out[16 + step[0] * distance, 16 + step[1] * distance] == pytest.approx(weight, abs=1 / 255)
    assert out.sum() == pytest.approx(1, abs=7 / 255)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
@each_severity
def test_a_blur_spreads_a_pixels_light_and_loses_none(name, severity):
    images = constant(0, 8)
    images[:, :, 16, 16] = 250
    light = corrupted(images, name, severity).int()
    reached = (light > 0).sum((2, 3))
    assert (reached > 1).all()
    # truncation takes less than a level of each pixel that is reached, of 25 at most, one by less than a level included
    assert (light.sum((2, 3)) <= 250).all() and (light.sum((2, 3)) > 250 - 25).all()


@each_severity
def test_glass_blur_takes_pixels_from_one_step_up_or_left_in_each_round(severity):
    smoothing, rounds = [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2)][severity - 1]
    images = torch.arange(32, dtype=torch.uint8).mul(8).view(1, 1, 1, 32).repeat(20, 3, 32, 1)  # level = 8 * column
    steps = (images.int() - corrupted(images, "glass_blur", severity).int())[..., 4:28] / 8
    assert steps.min() >= -0.5 * (smoothing > 0) and steps.max() <= rounds + 0.2
    assert steps.mean().item() == pytest.approx(rounds / 2, abs=0.05 + 0.2 * (smoothing > 0))


def clipped_zoom(image, factor):
    """(H, W, C), by scipy."""
    size = len(image)
    crop = math.ceil(size / factor)
    top = (size - crop) // 2
    zoomed = ndimage.zoom(image[top : top + crop, top : top + crop], (factor, factor, 1), order=1)
    trim = (len(zoomed) - size) // 2
    return zoomed[trim : trim + size, trim : trim + size]


@each_severity
@pytest.mark.parametrize("size", [32, 50])
def test_zoom_blur_is_the_mean_of_zooms(severity, size):
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], 0.01)
    images = smooth_images(1, size, size)
    zooms = [clipped_zoom(pixels(images), factor) for factor in factors]
    expected = (pixels(images) + sum(zooms)) / (len(factors) + 1)
    assert_is(corrupted(images, "zoom_blur", severity), expected)


# weather


@each_severity
def test_snow_is_whitening_and_two_layers_of_smeared_flakes(severity):
    mean, sd, factor, threshold, radius, sigma, kept = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]
    images, rng = smooth_images(1), generator("snow", severity)
    layer = clipped_zoom(mean + sd * rng.standard_normal((32, 32, 1), np.float32).astype(float), factor)
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255) / 255
    layer = np.floor(motion_blurred(layer, radius, sigma, rng.uniform(-135, -45)) * 255 + 1 / 514) / 255
    x = pixels(images)
    whitened = np.maximum(x, (x @ [0.299, 0.587, 0.114])[..., None] * 1.5 + 0.5)
    expected = kept * x + (1 - kept) * whitened + layer + np.rot90(layer, 2)
    assert_is(corrupted(images, "snow", severity), expected, levels=2, share=0.02)


@each_severity
def test_snow_only_brightens_and_is_the_same_on_every_channel(severity):
    images = smooth_images(6)
    assert (corrupted(images, "snow", severity) >= images).all()
    grey = corrupted(constant(50, 6), "snow", severity)
    assert (grey == grey[:, :1]).all() and grey.amax() > grey.amin() + 50


def diamond_square(size, decay, rng):
    """Point by point, wrapping around; the order of the random numbers is that of the fills, row by row."""
    heights, numbers = np.zeros((size, size)), iter(rng.uniform(-1, 1, size * size - 1))
    step, amplitude = size, 100.0
    while step >= 2:
        half = step // 2
        corners = [(-half, -half), (-half, half), (half, -half), (half, half)]
        sides = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for first_row, first_column, around in ((half, half, corners), (0, half, sides), (half, 0, sides)):
            for row in range(first_row, size, step):
                for column in range(first_column, size, step):
                    mean = np.mean([heights[(row + down) % size, (column + across) % size] for down, across in around])
                    heights[row, column] = mean + amplitude**2 * next(numbers)
        step, amplitude = half, amplitude / decay
    return (heights - heights.min()) / np.ptp(heights)


@each_severity
@pytest.mark.parametrize("size", [32, 20])
def test_fog_adds_a_plasma_fractal_and_keeps_the_maximum(severity, size):
    strength, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    images = smooth_images(1, size, size)
    heights = diamond_square(32, decay, generator("fog", severity))[:size, :size, None]
    x = pixels(images)
    expected = (x + strength * heights) * x.max() / (x.max() + strength)
    assert_is(corrupted(images, "fog", severity), expected)


@pytest.mark.parametrize("decay", [3, 1.75])
def test_a_plasma_fractal_fills_0_to_1_and_is_smoother_than_noise(decay):
    rngs = [np.random.default_rng(seed) for seed in range(10)]
    heights = plasma(64, decay, rngs, torch.zeros(1))
    assert heights.shape == (10, 64, 64)
    assert (heights.amin((1, 2)) == 0).all() and (heights.amax((1, 2)) == 1).all()
    for image in heights.numpy():
        assert np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1] > 0.7


@pytest.mark.parametrize(("severity", "added"), list(zip(SEVERITIES, [0.05, 0.1, 0.15, 0.2, 0.3], strict=True)))
def test_brightness_adds_to_the_value_of_hsv(severity, added):
    images = smooth_images(1, 16, 16)
    images[:, :, 0, :4] = 0
    images[:, :, 1] = images[:, :1, 1]  # grey
    expected = np.zeros((16, 16, 3))
    for row, column in np.ndindex(16, 16):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels(images)[row, column])
        expected[row, column] = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
    assert_is(corrupted(images, "brightness", severity), expected)
    for level in (0, 60, 250):
        assert (corrupted(constant(level), "brightness", severity) == min(int(level + 255 * added + 2e-4), 255)).all()


# digital


@pytest.mark.parametrize(("severity", "kept"), list(zip(SEVERITIES, [0.75, 0.5, 0.4, 0.3, 0.15], strict=True)))
def test_contrast_shrinks_the_distance_from_the_mean_of_the_channel(severity, kept):
    images = constant(0)
    images[:, 0, :16], images[:, 1], images[:, 2, :8] = 200, 90, 240  # means 100, 90, 60
    out = corrupted(images, "contrast", severity)
    assert (out[:, 1] == 90).all()
    for channel, mean, levels in ((0, 100, (200, 0)), (2, 60, (240, 0))):
        expected = {int((level - mean) * kept + mean + 2e-4) for level in levels}
        assert set(out[:, channel].unique().tolist()) == expected


@each_severity
def test_elastic_transform_is_an_affine_map_and_a_smooth_displacement(severity):
    strength, sigma, shift = [
        (0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)
    ][severity - 1]  # fmt: skip
    images, rng = smooth_images(1), generator("elastic_transform", severity)
    triangle = np.array([[26, 26], [26, 6], [6, 6]], float)  # x, y
    moved = triangle + rng.uniform(-shift, shift, (3, 2))
    linear = np.linalg.lstsq(np.c_[moved, np.ones(3)], triangle, rcond=None)[0].T  # (2, 3)
    back = linear[::-1, [1, 0, 2]]  # in rows and columns
    x = [
        ndimage.affine_transform(channel, back[:, :2], back[:, 2], order=1, mode="mirror")
        for channel in pixels(images).transpose(2, 0, 1)
    ]
    across, down = (
        ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=3) * strength
        for noise in rng.uniform(-1, 1, (2, 32, 32))
    )
    where = np.indices((32, 32)) + np.stack([down, across])
    expected = np.stack([ndimage.map_coordinates(channel, where, order=1, mode="reflect") for channel in x], axis=-1)
    assert_is(corrupted(images, "elastic_transform", severity), expected)


@each_severity
def test_elastic_transform_invents_no_level(severity):
    images = smooth_images(8)
    out = corrupted(images, "elastic_transform", severity)
    assert (out.amax((2, 3)) <= images.amax((2, 3))).all() and (out.amin((2, 3)) >= images.amin((2, 3))).all()
    near = (
        ndimage.maximum_filter(images.numpy(), (1, 1, 21, 21)),
        ndimage.minimum_filter(images.numpy(), (1, 1, 21, 21)),
    )
    assert (out.numpy() <= near[0]).all() and (out.numpy() >= near[1]).all()


@pytest.mark.parametrize(("severity", "small"), list(zip(SEVERITIES, [30, 28, 27, 24, 20], strict=True)))
def test_pixelate_is_two_box_filters_of_pil(severity, small):
    images = smooth_images(1)
    image = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    expected = image.resize((small, small), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    assert_is(corrupted(images, "pixelate", severity), np.array(expected) / 255, levels=0)
    assert len(corrupted(images, "pixelate", severity)[0].flatten(1).unique(dim=1).T) <= small**2


@pytest.mark.parametrize(("severity", "quality"), list(zip(SEVERITIES, [80, 65, 58, 50, 40], strict=True)))
def test_jpeg_compression_is_that_of_pil_at_the_quality(severity, quality):
    images = smooth_images(1)
    file = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    expected = np.array(Image.open(file)) / 255
    assert_is(corrupted(images, "jpeg_compression", severity), expected, levels=0)
    assert 0 < np.abs(expected - pixels(images)).mean() < 0.05
