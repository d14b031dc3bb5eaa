"""What the published package ``monodepth2`` computes from given seeds, saved for a test to compare with.

It runs in a process of its own, as ``python monodepth2_oracle.py PACKAGE_FOLDER OUTPUT_FILE THREADS``: the package installs
top-level modules called ``layers``, ``networks`` and ``utils``, which must not be seen by anything else. As many threads as
the caller has make convolutions add in the same order.
"""

import sys

import torch
from torch.nn import functional as F

SIZE = (64, 96)


def trained_like(network: torch.nn.Module) -> torch.nn.Module:
    """Statistics of BatchNorm that matter, and biases, as training leaves them; evaluation mode."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.2, 0.8)
            module.bias.data.normal_(std=0.1)
    return network.eval()


def depth(networks, layers: int) -> dict:
    encoder = trained_like(networks.ResnetEncoder(layers, False))
    decoder = trained_like(networks.DepthDecoder(encoder.num_ch_enc, range(4)))
    mask = trained_like(networks.DepthDecoder(encoder.num_ch_enc, range(4), num_output_channels=2))
    image = torch.rand(2, 3, *SIZE)
    features = encoder(image)
    size_and_use = {"height": SIZE[0], "width": SIZE[1], "use_stereo": False}  # as the released files hold
    return {
        "image": image,
        "encoder": encoder.state_dict() | size_and_use,
        "depth": decoder.state_dict(),
        "predictive_mask": mask.state_dict(),
        "features": [x.clone() for x in features],
        "sigmoids": [decoder(features)["disp", s] for s in range(4)],
        "masks": [mask(features)["disp", s] for s in range(4)],
    }


def poses(networks) -> dict:
    found = {}
    for count in (2, 3):
        frames = torch.rand(2, count, 3, *SIZE)
        encoder = trained_like(networks.ResnetEncoder(18, False, num_input_images=count))
        decoder = trained_like(networks.PoseDecoder(encoder.num_ch_enc, 1, num_frames_to_predict_for=2))
        shared = trained_like(networks.PoseDecoder(encoder.num_ch_enc, count))
        cnn = trained_like(networks.PoseCNN(count))
        maps = [torch.rand(2, 512, 2, 3) for _ in range(count)]
        found[count] = {
            "frames": frames,
            "pose_encoder": encoder.state_dict(),
            "pose": decoder.state_dict(),
            "separate": decoder([encoder(frames.flatten(1, 2))]),
            "maps": torch.stack(maps, 1),
            "shared_pose": shared.state_dict(),
            "shared": shared([[x] for x in maps]),
            "cnn_pose": cnn.state_dict(),
            "cnn": cnn(frames.flatten(1, 2)),
        }
    return found


def geometry(layers) -> dict:
    """In float64: the package adds 1e-7 to z and to angles, which is all that may differ."""
    torch.set_default_dtype(torch.float64)
    batch, (height, width) = 3, SIZE
    axis_angle, translation = 0.1 * torch.randn(2, batch, 1, 3)
    poses = {flag: layers.transformation_from_parameters(axis_angle, translation, invert=flag) for flag in (False, True)}
    intrinsics = torch.tensor([[60.0, 0, 47, 0], [0, 55, 30, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).repeat(batch, 1, 1)
    sigmoid = 0.02 * torch.rand(batch, 1, height, width)
    disparity, depth = layers.disp_to_depth(sigmoid, 0.1, 100.0)
    image = F.interpolate(torch.rand(batch, 3, 8, 12), size=SIZE, mode="bilinear")
    points = layers.BackprojectDepth(batch, height, width).double()(depth, torch.linalg.pinv(intrinsics))
    grid = layers.Project3D(batch, height, width)(points, intrinsics, poses[False])
    warped = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
    torch.set_default_dtype(torch.float32)
    return {
        "axis_angle": axis_angle[:, 0],
        "translation": translation[:, 0],
        "pose": poses[False],
        "inverted": poses[True],
        "intrinsics": intrinsics[:, :3, :3],
        "sigmoid": sigmoid,
        "disparity": disparity,
        "depth": depth,
        "image": image,
        "warped": warped,
    }


def losses(layers) -> dict:
    """The package's layers, put together as its trainer does, with the tie-break noise drawn here."""
    ssim, (target, *rest) = layers.SSIM(), torch.rand(5, 2, 3, *SIZE)
    warped, sources = rest[:2], rest[2:]
    for near in (warped, sources):
        near[0] = (target + 0.05 * torch.randn_like(target)).clamp(0, 1)
    sigmoid, mask = torch.rand(2, 1, *SIZE), torch.rand(2, 2, *SIZE)

    def error(a, b):
        return 0.85 * ssim(a, b).mean(1, True) + 0.15 * (a - b).abs().mean(1, True)

    reprojection = torch.cat([error(x, target) for x in warped], 1)
    identity = torch.cat([error(x, target) for x in sources], 1)
    noise = torch.randn(identity.shape, generator=torch.Generator().manual_seed(7)) * 1e-5
    mean_noise = torch.randn(identity[:, :1].shape, generator=torch.Generator().manual_seed(7)) * 1e-5
    best, index = torch.cat([identity + noise, reprojection], 1).min(1)
    averages = torch.cat([identity.mean(1, True) + mean_noise, reprojection.mean(1, True)], 1).min(1)[0]
    with_mask = (reprojection * mask).min(1)[0].mean() + 0.2 * F.binary_cross_entropy(mask, torch.ones_like(mask))
    normalised = sigmoid / (sigmoid.mean((2, 3), True) + 1e-7)
    return {
        "target": target,
        "warped": torch.stack(warped, 1),
        "sources": torch.stack(sources, 1),
        "sigmoid": sigmoid,
        "mask": mask,
        "ssim": ssim(warped[0], target),
        "error": error(warped[0], target),
        "full": best.mean(),
        "identity_selection": index > 1,
        "averages": averages.mean(),
        "min_only": reprojection.min(1)[0].mean(),
        "mean_only": reprojection.mean(),
        "predictive": with_mask,
        "smoothness": layers.get_smooth_loss(normalised, target),
    }


def step(layers, networks) -> dict:
    """A whole training step on a triplet, put together as the paper trains: the loss and every network's gradient."""
    scene = F.interpolate(torch.rand(2, 3, SIZE[0] // 4, SIZE[1] // 4 + 3), (SIZE[0], SIZE[1] + 12), mode="bicubic").clamp(0, 1)
    previous, target, following = (scene[..., x : x + SIZE[1]].contiguous() for x in (4, 6, 9))
    parts = {
        "encoder": networks.ResnetEncoder(18, False),
        "pose_encoder": networks.ResnetEncoder(18, False, num_input_images=2),
    }
    parts["depth"] = networks.DepthDecoder(parts["encoder"].num_ch_enc, range(4))
    parts["pose"] = networks.PoseDecoder(parts["pose_encoder"].num_ch_enc, 1, num_frames_to_predict_for=2)
    for part in parts.values():
        trained_like(part)
    with torch.no_grad():  # motion of about a pixel, and depths that differ
        parts["pose"].convs["pose", 2].bias.normal_(std=2.0)
    states = {name: {key: x.clone() for key, x in part.state_dict().items()} for name, part in parts.items()}
    camera = torch.tensor([[0.58 * SIZE[1], 0, 47.0, 0], [0, 0.9 * SIZE[0], 30.0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).repeat(
        2, 1, 1
    )
    unproject, project, ssim = layers.BackprojectDepth(2, *SIZE), layers.Project3D(2, *SIZE), layers.SSIM()

    def error(a, b):
        return 0.85 * ssim(a, b).mean(1, True) + 0.15 * (b - a).abs().mean(1, True)

    sigmoids = parts["depth"](parts["encoder"](target))
    moved = []
    for pair, backwards in (((previous, target), True), ((target, following), False)):
        turn, move = parts["pose"]([parts["pose_encoder"](torch.cat(pair, 1))])
        moved.append(layers.transformation_from_parameters(turn[:, 0], move[:, 0], invert=backwards))
    generator, losses = torch.Generator().manual_seed(11), []
    for scale in range(4):
        sigmoid = sigmoids["disp", scale]
        full = F.interpolate(sigmoid, SIZE, mode="bilinear", align_corners=False)
        seen = unproject(layers.disp_to_depth(full, 0.1, 100.0)[1], camera.inverse())
        warped = [
            F.grid_sample(x, project(seen, camera, pose), padding_mode="border", align_corners=True)
            for x, pose in zip((previous, following), moved, strict=True)
        ]
        identity = torch.cat([error(x, target) for x in (previous, following)], 1)
        identity = identity + torch.randn(identity.shape, generator=generator) * 1e-5
        photometric = torch.cat([identity, *(error(x, target) for x in warped)], 1).min(1)[0].mean()
        small = F.interpolate(target, sigmoid.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        normalised = sigmoid / (sigmoid.mean((2, 3), True) + 1e-7)
        losses.append(photometric + 1e-3 / 2**scale * layers.get_smooth_loss(normalised, small))
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = {
        name: states[name] | {key: p.grad for key, p in part.named_parameters() if p.grad is not None}
        for name, part in parts.items()
    }
    return {
        "views": torch.stack([target, previous, following], 1),
        "intrinsics": camera[:, :3, :3],
        "states": states,
        "loss": loss.detach(),
        "gradients": gradients,
    }


if __name__ == "__main__":
    folder, output, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    sys.path.insert(0, folder)
    import layers
    import networks

    torch.manual_seed(0)
    with torch.no_grad():
        found = {
            "resnet18": depth(networks, 18),
            "resnet50": depth(networks, 50),
            "poses": poses(networks),
            "geometry": geometry(layers),
            "losses": losses(layers),
        }
    found["step"] = step(layers, networks)
    torch.save(found, output)
