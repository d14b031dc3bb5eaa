"""Laws of metres by a canonical camera: they follow the focal length, not the number of pixels, from training to files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthkit.cli.main import main
from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import CheckpointError, GeometryError, LabelError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.evaluation.calibration import calibrate
from depthkit.evaluation.crops import FULL
from depthkit.geometry import crop_intrinsics, intrinsics_from_field_of_view, scale_intrinsics
from depthkit.inference import DepthPredictor
from depthkit.inference.teacher import load_teacher
from depthkit.models import DepthEnsemble, flip_averaged, from_pretrained, lrn_timm, monodepth2_timm, save_network
from depthkit.paradigms import MetricModule
from depthkit.resize import InputResize, OutputResize, native_map, seen_focal
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (32, 64)
K = intrinsics_from_field_of_view(SIZE, 60.0)
FOCAL = K[0, 0]
RULES = [
    InputResize(rule="native", multiple=1),
    InputResize(96, "upper_bound", 1),
    InputResize((32, 96), "stretch", 1),
    InputResize(40, "upper_bound", 16, extend=True),
    InputResize(64, "upper_bound", 1, padding=2.0),
]


METRES = replace(PROTOCOLS["zoedepth_kitti"], shown=FULL, crop=FULL, output=OutputResize(), published={})


class Ruler(nn.Module):
    """What a perfect network predicts of a wall that fills a width of ``wide`` metres: by the pixels that it sees."""

    ambiguity, size_multiple, canonical_focal = Ambiguity.METRIC, 1, 1000.0

    def __init__(self, representation=Representation.DEPTH, wide=2.0):
        super().__init__()
        self.representation, self.wide = representation, wide

    def forward(self, image):
        canonical = torch.full((len(image), 1, *image.shape[-2:]), self.wide * 1000 / image.shape[-1])
        return {"depth": canonical, "disparity": 1 / canonical, "log_depth": canonical.log()}[self.representation]


def predictor(**options):
    return DepthPredictor(Ruler(), ambiguity=Ambiguity.METRIC, input_rule=RULES[0], **options)


def image(height=32, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def depth(prediction):
    return prediction.depth()[0, 0]


def test_metres_double_with_the_focal_length():
    near, far = (depth(predictor()(image(), intrinsics=(f * FOCAL, f * FOCAL, 31.5, 15.5))) for f in (1, 2))
    assert near == pytest.approx(2 * FOCAL / 64)
    assert far == pytest.approx(2 * near)


@pytest.mark.parametrize("scale", [0.5, 3])
def test_resizing_an_image_with_its_camera_leaves_metres_alone(scale):
    resized = image(int(32 * scale), int(64 * scale))
    camera = scale_intrinsics(K, scale, scale)
    assert depth(predictor()(resized, intrinsics=camera)) == pytest.approx(2 * FOCAL / 64)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("representation", [Representation.DEPTH, Representation.DISPARITY, Representation.LOG_DEPTH])
def test_however_the_network_sees_it_the_focal_length_is_that_of_what_it_sees(rule, representation):
    """A true canonical network's answer depends on the size of what it sees; the metres must not."""

    class Known(Ruler):
        """True of a wall 3 m away, whatever the size."""

        def forward(self, seen):
            rows, columns = rule.margins(*SIZE)
            height, width = rule.size(*SIZE)
            focal = (FOCAL * width / (64 + 2 * columns) + FOCAL * height / (32 + 2 * rows)) / 2
            canonical = torch.full((len(seen), 1, *seen.shape[-2:]), 3 * 1000 / focal)
            return {"depth": canonical, "disparity": 1 / canonical, "log_depth": canonical.log()}[self.representation]

    model = Known(representation)
    found = DepthPredictor(model, ambiguity=Ambiguity.METRIC, input_rule=rule)(image(), intrinsics=K)
    np.testing.assert_allclose(found.depth(), 3, rtol=1e-5)
    tensor = torch.rand(1, 3, *SIZE)
    native = native_map(flip_averaged(model, True), tensor, rule, intrinsics=torch.from_numpy(K)[None]).map
    expected = {"depth": 3, "disparity": 1 / 3, "log_depth": np.log(3)}[representation]
    np.testing.assert_allclose(native, expected, rtol=1e-5)


def test_each_side_is_stretched_with_its_own_focal_length():
    camera = torch.tensor([[100.0, 0, 9.5], [0, 200.0, 4.5], [0, 0, 1]])
    assert seen_focal(camera, size=(10, 20), seen=(20, 30)) == (100 * 1.5 + 200 * 2) / 2


def test_a_crop_keeps_the_focal_length():
    camera = crop_intrinsics(K, 30, 10)
    found = predictor()(image()[10:, 30:], intrinsics=camera)
    assert depth(found) == pytest.approx(2 * FOCAL / 34)
    np.testing.assert_array_equal(found.intrinsics, camera)


def sample(focal, key="a"):
    camera = np.array([[focal, 0, 31.5], [0, focal, 15.5], [0, 0, 1]])
    label = np.full(SIZE, 2 * focal / 64, np.float32)
    label[:, ::2] *= 1.0001
    return Sample(key, image(), label, label > 0, Ambiguity.METRIC, Representation.DEPTH, intrinsics=camera)


def test_scores_and_calibration_use_each_samples_camera():
    samples = [sample(40.0), sample(160.0, "b")]
    for rule in RULES[:2]:
        report = evaluate(Ruler(), samples, replace(METRES, input=rule), progress=False)
        assert report.summary["abs_rel"] < 1e-3
    network = Ruler()
    network.input_rule = RULES[0]
    assert calibrate(network, samples).scale == pytest.approx(1, rel=1e-3)
    with pytest.raises(GeometryError, match="expected the intrinsics of every image"):
        evaluate(Ruler(), [samples[0].replace(intrinsics=None)], METRES, progress=False)


def test_without_a_camera_there_are_no_metres():
    with pytest.raises(GeometryError, match=r"Give intrinsics= \(--intrinsics fx fy cx cy, or --fov DEGREES\)"):
        predictor()(image())
    names = []
    assert not list(predictor().video([image()] * 2, on_error=lambda name, _: names.append(name)))
    assert names == ["frame 0", "frame 1"]
    assert len(list(predictor().video([image()] * 2, intrinsics=K))) == 2


def network(focal):
    torch.manual_seed(0)
    model = lrn_timm("mobilenetv2_035", pretrained=False)
    model.canonical_focal = focal
    return model


def test_an_ensemble_has_one_canonical_camera():
    other = Ruler()
    other.canonical_focal = 500.0
    assert DepthEnsemble([Ruler(), Ruler()]).canonical_focal == 1000.0
    with pytest.raises(LabelError, match="expected an ensemble of one canonical focal length"):
        DepthEnsemble([Ruler(), other])


@pytest.mark.parametrize("way", ["ckpt", "folder", pytest.param("pt2", marks=pytest.mark.slow)])
def test_the_focal_length_is_stored_with_the_network(way, tmp_path):
    from depthkit.inference import export_program

    model = network(500.0)
    if way == "ckpt":
        save_network(model, place := tmp_path / "a.ckpt", ambiguity="metric", size=SIZE)
    elif way == "folder":
        place = model.save_pretrained(tmp_path / "a", ambiguity="metric", size=SIZE)
    else:
        place = export_program(model, tmp_path / "a.pt2", size=(32, 64), ambiguity=Ambiguity.METRIC).path
    assert from_pretrained(place).canonical_focal == 500.0
    plain = tmp_path / "plain.ckpt"
    save_network(network(None), plain, ambiguity="metric")
    assert from_pretrained(plain).canonical_focal is None
    if way == "ckpt":
        with pytest.raises(LabelError, match="predicts for a canonical one of 500 px"):
            load_teacher(place)


def test_the_command_takes_a_camera_an_angle_a_file_or_exif(tmp_path, capsys):
    save_network(network(500.0), net := tmp_path / "a.ckpt", ambiguity="metric", size=SIZE)
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image()).save(photos / "a.jpg")

    def found(*options, code=0):
        words = ["predict", str(net), str(photos), f"--out={tmp_path / 'out'}", "--format=npy", "--colour=false"]
        if code:
            with pytest.raises(SystemExit, match=str(code)):
                main([*words, "--accelerator=cpu", "--devices=1", *options])
            return " ".join(capsys.readouterr().err.split())
        main([*words, "--accelerator=cpu", "--devices=1", *options])
        return float(np.exp(-np.load(tmp_path / "out" / "a.jpg.npy")).mean())

    assert "expected the intrinsics of every image" in found(code=2)
    one = found("--intrinsics", "50", "50", "31.5", "15.5")
    assert found("--intrinsics", "100", "100", "31.5", "15.5") == pytest.approx(2 * one, rel=1e-5)
    assert found("--fov", str(2 * np.degrees(np.arctan(32 / 50)))) == pytest.approx(one, rel=1e-5)
    assert "expected intrinsics or a field of view" in found("--fov=60", "--intrinsics", "50", "50", "31", "23", code=2)
    camera = {"fx": 100, "fy": 100, "cx": 63.5, "cy": 31.5, "width": 128, "height": 64}
    (photos / "intrinsics.json").write_text(json.dumps(camera))
    assert found() == pytest.approx(one, rel=1e-5)
    (photos / "intrinsics.json").write_text(json.dumps(camera | {"height": 96}))
    assert "expected the size of its intrinsics" in found(code=2)
    (photos / "intrinsics.json").unlink()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 27
    Image.fromarray(image()).save(photos / "a.jpg", exif=exif)
    assert found() == pytest.approx(one * 27 / 43.27 * np.hypot(32, 64) / 50, rel=1e-5)


def batch(*samples):
    return to_float(collate(list(samples), [0] * len(samples)))


def test_training_compares_in_the_canonical_space_and_bounds_labels_in_metres():
    seen = []

    class Spy(nn.Module):
        representation, accepts = Representation.DEPTH, frozenset({Ambiguity.METRIC})

        def forward(self, pred, target, valid):
            seen.append((target, valid))
            return (pred - target).abs().flatten(1).mean(1)

    module = MetricModule(network(None), loss=Spy(), canonical_focal=500, label_range=(1e-3, 4.0))
    near, far = sample(50.0), sample(200.0)
    module.losses(batch(near, far))
    target, valid = seen[0]
    np.testing.assert_allclose(target[0], near.label[None] * 500 / 50, rtol=1e-5)
    assert valid[0].all()  # 15.6 canonical, but 1.6 m
    assert not valid[1].any()  # 6.2 m
    stretched = MetricModule(network(None), loss=Spy(), canonical_focal=500, network_size=(96, 64))
    stretched.losses(batch(near))
    np.testing.assert_allclose(seen[1][0][0], near.label[None] * 500 / 100, rtol=1e-5)
    with pytest.raises(GeometryError, match="expected the intrinsics of every image"):
        module.losses(batch(near.replace(intrinsics=None)))
    with pytest.raises(GeometryError, match="above 0"):
        MetricModule(network(None), canonical_focal=-1)
    with pytest.raises(CheckpointError, match=r"Set canonical_focal to 1000\."):
        module.check_run({"depthkit": {"ambiguity": "metric", "canonical_focal": 1000.0}})


@pytest.mark.parametrize(
    "way",
    ["predictor", "predict", *(pytest.param(way, marks=pytest.mark.slow) for way in ("exported", "predict exported"))],
)
def test_on_every_way_to_metres_they_follow_the_focal_length_and_not_the_pixels(way, tmp_path):
    from depthkit.inference import export_program

    model = monodepth2_timm("test_resnet", pretrained=False).eval()
    model.canonical_focal, model.trained_size = 500.0, (64, 128)
    save_network(model, net := tmp_path / "net.ckpt", ambiguity="metric")
    if "exported" in way:
        net = export_program(model, tmp_path / "net.pt2", size=(64, 128), ambiguity=Ambiguity.METRIC).path
    rows, columns = np.mgrid[0:64, 0:128]
    photo = Image.fromarray(np.stack([2 * rows, columns, rows + columns], -1).astype(np.uint8))

    def metres(scale, focal):
        file, camera = tmp_path / f"{scale}.png", (focal, focal, 64 * scale - 0.5, 32 * scale - 0.5)
        photo.resize((128 * scale, 64 * scale), Image.Resampling.BICUBIC).save(file)
        if way.split()[0] == "predict":
            words = ["predict", str(net), str(file), f"--out={tmp_path / 'out'}", "--format=npy", "--colour=false"]
            main([*words, "--accelerator=cpu", "--devices=1", "--intrinsics", *map(str, camera)])
            return 1 / np.load(tmp_path / "out" / f"{file.name}.npy").mean()
        found = DepthPredictor.from_pretrained(net)(file, intrinsics=camera)
        return 1 / found.map.mean()

    one = metres(1, 50.0)
    assert metres(1, 100.0) == pytest.approx(2 * one, rel=1e-5)
    assert metres(2, 100.0) == pytest.approx(one, rel=1e-2)
    assert metres(2, 50.0) == pytest.approx(one / 2, rel=1e-2)
