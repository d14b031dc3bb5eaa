"""Cameras, poses, and what they turn depth into: points, other views, normals; optical flow between frames in ``flow``.

Conventions are those of ``depthkit.types``: pixel centres at integer coordinates, camera axes x right, y down, z forward,
depth along z, and poses ``a_from_b``.
"""

from depthkit.geometry.camera import depth_to_points, project, unproject
from depthkit.geometry.intrinsics import crop_intrinsics, flip_intrinsics, intrinsics_from_field_of_view, scale_intrinsics
from depthkit.geometry.normals import depth_to_normals
from depthkit.geometry.pose import axis_angle_to_matrix, chain_poses, flip_pose, invert_pose, pose_from_axis_angle
from depthkit.geometry.warp import inside_image, reproject, sample_pixels, warp

__all__ = [
    "axis_angle_to_matrix",
    "chain_poses",
    "crop_intrinsics",
    "depth_to_normals",
    "depth_to_points",
    "flip_intrinsics",
    "flip_pose",
    "inside_image",
    "intrinsics_from_field_of_view",
    "invert_pose",
    "pose_from_axis_angle",
    "project",
    "reproject",
    "sample_pixels",
    "scale_intrinsics",
    "unproject",
    "warp",
]
